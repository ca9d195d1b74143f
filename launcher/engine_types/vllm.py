"""vLLM: on GPUs, and on a CPU by the community's build, for tests and a try."""

from dataclasses import replace
from pathlib import Path

from launcher.engine_types import builtin
from launcher.engine_types.base import LOOPBACK, Launch, Place
from launcher.engine_types.gpu_memory import vllm_fraction
from launcher.engine_types.sglang import CHUNKS_PER_CONTEXT, CLEAN, devices, interpreter
from modelserver.values import Kind, ModelSpec

#: vLLM's own variable for its API key.
KEY_VARIABLE = "VLLM_API_KEY"
#: Tokens; smaller pieces of prompts than these leave a GPU idle.
LEAST_CHUNK = 2048
#: After a SIGTERM vLLM gives up what it has, unless it is given time; it is drained
#: before, and shorter than the launcher waits until it kills.
SHUTDOWN_SECONDS = 3
#: An engine on a cluster calls nobody.
QUIET = {"VLLM_NO_USAGE_STATS": "1"}
#: Tokens; where the model's section says nothing.
CONTEXT_LENGTH = 4096
#: GiB for the cache; left alone, vLLM takes half of the machine's memory.
CACHE_GIB = 1


class VLLM:
    """``vllm serve`` of the environment ``vllm``.

    Its GPUs are shared out among ``data_parallel`` replicas.
    """

    starts_process = True
    settle_path = ""

    def prepare(self, model: ModelSpec, home: Path) -> None:
        """Find the environment; write the builtin models where one is wanted."""
        builtin.ensure(model, interpreter(model, home), home)

    def launch(self, model: ModelSpec, place: Place, home: Path) -> Launch:
        """The command for one start; the fleet file's extra_args win, being last."""
        replicas = model.data_parallel
        argv = [
            str(interpreter(model, home).with_name("vllm")),
            "serve",
            builtin.model_path(model, home),
            *address(model, place),
            "--tensor-parallel-size",
            str(max(1, len(place.gpus) // replicas)),
            *(["--data-parallel-size", str(replicas)] if replicas > 1 else []),
            "--gpu-memory-utilization",
            str(vllm_fraction(place)),
            *limits(model),
        ]
        if model.torch_compile is False:
            argv.append("--enforce-eager")
        environment = {**CLEAN, **QUIET, **devices(place), **model.environment}
        return Launch((*argv, *model.extra_args), environment)

    def key_variable(self, model: ModelSpec) -> str:
        """vLLM's own."""
        return KEY_VARIABLE


class VLLMCPU:
    """vLLM's server of the environment ``vllm-cpu``."""

    starts_process = True
    settle_path = ""

    def prepare(self, model: ModelSpec, home: Path) -> None:
        """Find the environment; write the builtin models where one is wanted."""
        builtin.ensure(model, interpreter(model, home), home)

    def launch(self, model: ModelSpec, place: Place, home: Path) -> Launch:
        """The command for one start; the fleet file's extra_args win, being last."""
        path = builtin.model_path(model, home)
        length = model.context_length or CONTEXT_LENGTH
        argv = [
            str(interpreter(model, home)),
            # Its `vllm` looks for a distribution of that name, which it is not.
            "-m",
            "vllm.entrypoints.openai.api_server",
            "--model",
            path,
            *address(model, place),
            # "auto" would take half precision, which no CPU here is quick at.
            "--dtype",
            "float32",
            *limits(replace(model, context_length=length)),
        ]
        if not model.torch_compile:
            argv.append("--enforce-eager")  # Compiling takes a minute at each start.
        environment = {
            **CLEAN,
            **QUIET,
            "VLLM_CPU_KVCACHE_SPACE": str(CACHE_GIB),
            # One thread per engine, wherever there is room, as with SGLang.
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            **builtin.standins(model),
            **({"HF_HUB_OFFLINE": "1"} if Path(path).is_dir() else {}),
            **model.environment,
        }
        return Launch((*argv, *model.extra_args), environment)

    def key_variable(self, model: ModelSpec) -> str:
        """vLLM's own."""
        return KEY_VARIABLE


def address(model: ModelSpec, place: Place) -> list[str]:
    """Under which name and where it serves."""
    return [
        "--served-model-name",
        model.name,
        "--host",
        LOOPBACK,
        "--port",
        str(place.port),
    ]


def limits(model: ModelSpec) -> list[str]:
    """Requests, context and chunks, the same with and without GPUs.

    vLLM counts requests for each replica. An embedding model reads a prompt whole.
    """
    running = -(-model.max_running // model.data_parallel)
    argv = ["--max-num-seqs", str(running)]
    length = model.context_length
    if length is not None:
        argv += ["--max-model-len", str(length)]
    if model.kind is Kind.EMBEDDING:
        argv += ["--runner", "pooling"]
    elif length is not None:
        chunk = max(LEAST_CHUNK, length // CHUNKS_PER_CONTEXT, running)
        argv += ["--enable-chunked-prefill", "--max-num-batched-tokens", str(chunk)]
    argv += ["--shutdown-timeout", str(SHUTDOWN_SECONDS)]
    # A line for each of millions of requests says nothing.
    return [*argv, "--disable-uvicorn-access-log"]
