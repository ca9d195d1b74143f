"""SGLang: on GPUs, and on a CPU for tests and for a first try."""

from pathlib import Path

from launcher import environments
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
from launcher.engine_types.capacity import sglang_capacity
from launcher.engine_types.gpu_memory import sglang_fraction
from launcher.engine_types.hub import offline_once_complete, offline_with_folder
from launcher.engine_types.lora import sglang_adapters
from launcher.engine_types.versions import require_version
from launcher.startup_log.weights import Weights
from modelserver.values import Kind, ModelSpec

#: SGLang looks every second whether a request was revoked, instead of every 4 seconds:
#: until then it generates for nobody.
REVOKED_CHECK = {"SGLANG_REQUEST_STATE_WAIT_TIMEOUT": "1"}
#: The variable from which the starter of ``sglang serve`` reads the API key.
SGLANG_KEY_VARIABLE = "MODELSERVER_ENGINE_KEY"
#: A line for each of millions of requests says nothing.
QUIET = ("--log-level-http", "warning")
#: On a CPU: tokens of the cache. By itself SGLang takes 15 GB, and starts half a minute
#: later.
CPU_CACHE_TOKENS = 65_536
#: On a CPU: the only kernels for adapters that need no GPU.
LORA_ON_CPU = ("--lora-backend", "torch_native")
#: On a CPU: what asks for pinned memory gets other memory.
UNPINNED = {"MODELSERVER_ENGINE_UNPINNED": "1"}
#: On a CPU: tokens of a prompt that are read at once.
CPU_CHUNK_TOKENS = 2048


class SGLang:
    """``sglang serve`` of the environment ``sglang``.

    Its GPUs are shared out among ``data_parallel`` replicas.
    """

    starts_process = True
    settle_path = ""
    capacity_path = "/server_info"

    def capacity(self, page: bytes, running: int, kind: Kind) -> int:
        """How many requests it takes at once by its own account."""
        return sglang_capacity(page, kind)

    def prepare(self, model: ModelSpec, home: Path) -> None:
        """Find the environment, and what the model says of itself."""
        builtin.ensure(model, interpreter(model, home), home)
        embedding.fetch_files(model, home)

    def launch(self, model: ModelSpec, place: Place, home: Path) -> Launch:
        """The command for one start; the fleet file's extra_args win, being last."""
        files = embedding.files_of(model, home)
        embedding.check_pooling(model, files, "vllm")
        argv = [
            *serve(model, place, home),
            *_parallel(model, place),
            *context(model, files),
            "--mem-fraction-static",
            str(sglang_fraction(place)),
            *_running(model),
            "--enable-metrics",
            *QUIET,
        ]
        argv += [*kind_and_compile(model), *sglang_adapters(model)]
        environment = {
            **CLEAN_ENVIRONMENT,
            **meeting_variables(place),
            **REVOKED_CHECK,
            **gpu_variables(place),
            **_uneven(place),
            **offline_once_complete(model, files),
            **model.environment,
        }
        return Launch((*argv, *model.extra_args), environment)

    def key_variable(self, model: ModelSpec) -> str:
        """The starter's variable; the starter hands the key on."""
        return SGLANG_KEY_VARIABLE


class SGLangCPU(Untold):
    """``sglang serve --device cpu`` of the environment ``sglang-cpu``."""

    starts_process = True
    #: SGLang's own warm-up, which is left out, ends with this. Otherwise requests wait
    #: 0.4 s whenever Python's garbage collector goes through all that was loaded.
    settle_path = "/freeze_gc"

    def prepare(self, model: ModelSpec, home: Path) -> None:
        """Find the environment, and what the model says of itself."""
        builtin.ensure(model, interpreter(model, home), home)
        embedding.fetch_files(model, home)

    def launch(self, model: ModelSpec, place: Place, home: Path) -> Launch:
        """The command for one start; the fleet file's extra_args win, being last."""
        path, files = builtin.model_path(model, home), embedding.files_of(model, home)
        embedding.check_pooling(model, files, "vllm-cpu")
        argv = [
            *serve(model, place, home),
            "--device",
            "cpu",
            # "auto" would take half precision, which is slow on a CPU.
            "--dtype",
            "float32",
            "--attention-backend",
            "torch_native",
            "--disable-overlap-schedule",
            "--max-total-tokens",
            str(CPU_CACHE_TOKENS),
            "--mem-fraction-static",
            "0.3",
            "--max-running-requests",
            str(model.max_running),
            *_prompts(model, files),
            *(_parallel(model, place) if place.meeting else ()),
            "--enable-metrics",
            *QUIET,
            # READY needs a generated token anyway, and the warm-up takes 2 s.
            "--skip-server-warmup",
            # Without it an idle engine keeps a core busy.
            "--sleep-on-idle",
        ]
        argv += [*kind_and_compile(model), *sglang_adapters(model)]
        if model.adapters:
            argv += LORA_ON_CPU
        environment = {
            **CLEAN_ENVIRONMENT,
            **meeting_variables(place),
            **REVOKED_CHECK,
            "SGLANG_USE_CPU_ENGINE": "1",
            # With a thread per core, 3 requests a second; with one thread, 78.
            "OMP_NUM_THREADS": "1",
            **_cores(place),
            **builtin.standins(model),
            # Forked children need not import torch again, spawned ones do.
            "MODELSERVER_ENGINE_FORK": "1",
            **(UNPINNED if model.adapters else {}),
            **offline_with_folder(model, path),
            **offline_once_complete(model, files),
            **model.environment,
        }
        return Launch((*argv, *model.extra_args), environment)

    def key_variable(self, model: ModelSpec) -> str:
        """The starter's variable; the starter hands the key on."""
        return SGLANG_KEY_VARIABLE


def _running(model: ModelSpec) -> list[str]:
    """The most requests at once; left out, SGLang's own."""
    most = model.max_running
    return ["--max-running-requests", str(most)] if most else []


def _uneven(place: Place) -> dict[str, str]:
    """Shared GPUs differ in what is free, and SGLang refuses such a group.

    Its fraction is of the GPU with least, so each has what the engine takes.
    """
    if place.parallel_gpus < 2 or not place.promised_bytes:
        return {}
    return {"SGLANG_ENABLE_TP_MEMORY_INBALANCE_CHECK": "false"}


def _parallel(model: ModelSpec, place: Place) -> list[str]:
    replicas = model.data_parallel
    argv = ["--tp-size", str(place.parallel_gpus // replicas)]
    argv += ["--dp-size", str(replicas)] if replicas > 1 else []
    return [*argv, *_meeting(place)]


def _meeting(place: Place) -> list[str]:
    """How a node of an engine of several hosts finds the others."""
    if (meeting := place.meeting) is None:
        return []
    argv = ["--nnodes", str(meeting.nodes), "--node-rank", str(meeting.node)]
    return [*argv, "--dist-init-addr", str(meeting)]


def _cores(place: Place) -> dict[str, str]:
    """On a CPU: a core for each node, which SGLang asks for beyond NUMA nodes."""
    nodes = place.meeting.nodes if place.meeting else 0
    cores = "|".join(str(node) for node in range(nodes))
    return {"SGLANG_CPU_OMP_THREADS_BIND": cores} if nodes else {}


def kind_and_compile(model: ModelSpec) -> list[str]:
    """The flags of an embedding model and of torch.compile, which is off by default."""
    argv = ["--is-embedding"] if model.kind is Kind.EMBEDDING else []
    return [*argv, "--enable-torch-compile"] if model.torch_compile else argv


def serve(model: ModelSpec, place: Place, home: Path) -> list[str]:
    """The first words of the command, the same with and without GPUs."""
    python = interpreter(model, home)
    require_version(model, python)
    return [
        str(python),
        str(environments.starter("sglang")),
        "serve",
        "--model-path",
        builtin.model_path(model, home),
        "--served-model-name",
        model.name,
        "--host",
        LOOPBACK,
        "--port",
        str(place.port),
    ]


def context(model: ModelSpec, files: Weights) -> list[str]:
    """The context where it is given, and how prompts are read: by SGLang's defaults."""
    length = model.context_length
    argv = [] if length is None else ["--context-length", str(length)]
    whole = embedding.needs_whole_prompts(model, files)
    return [*argv, *embedding.WHOLE_PROMPTS] if whole else argv


def _prompts(model: ModelSpec, files: Weights) -> list[str]:
    """The same on a CPU, where SGLang's default chunk holds the others up."""
    if embedding.needs_whole_prompts(model, files):
        return list(embedding.WHOLE_PROMPTS)
    return [
        "--context-length",
        str(model.context_length or CPU_CONTEXT_TOKENS),
        "--chunked-prefill-size",
        str(CPU_CHUNK_TOKENS),
    ]
