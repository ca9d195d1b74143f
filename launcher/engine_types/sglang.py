"""SGLang on GPUs."""

from pathlib import Path

from launcher import environments
from launcher.engine_types import builtin
from launcher.engine_types.base import LOOPBACK, Launch, Place
from launcher.engine_types.gpu_memory import sglang_fraction
from modelserver.values import Kind, ModelSpec

#: Prompts are read in pieces of this part of the context, so that a long one does not
#: hold up the others.
CHUNKS_PER_CONTEXT = 8
#: What would lead an environment's interpreter to the launcher's own packages, or keep
#: it from writing the bytecode that makes the next start short; empty is unset.
CLEAN = {"PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": ""}
#: How often SGLang looks whether anybody still waits for an answer, in seconds: for so
#: long it generates for nobody after a request was revoked. Its own are 4.
GIVEN_UP = {"SGLANG_REQUEST_STATE_WAIT_TIMEOUT": "1"}
#: The python of an image whose model names no interpreter.
IMAGE_PYTHON = "python3"
#: Where the starter of ``sglang serve`` reads the API key.
KEY_VARIABLE = "MODELSERVER_ENGINE_KEY"


class SGLang:
    """``sglang serve`` of the environment ``sglang``.

    Its GPUs are shared out among ``data_parallel`` replicas.
    """

    starts_process = True
    settle_path = ""

    def prepare(self, model: ModelSpec, home: Path) -> None:
        """Find the environment; write the builtin models where one is wanted."""
        builtin.ensure(model, interpreter(model, home), home)

    def launch(self, model: ModelSpec, place: Place, home: Path) -> Launch:
        """The command for one start; the fleet file's extra_args win, being last."""
        argv = [
            *serve(model, place, home),
            *_parallel(model, place),
            *context(model),
            "--mem-fraction-static",
            str(sglang_fraction(place)),
            "--max-running-requests",
            str(model.max_running),
            "--enable-metrics",
        ]
        argv += kind_and_compile(model)
        environment = {
            **CLEAN,
            **GIVEN_UP,
            **devices(place),
            **_uneven(place),
            **model.environment,
        }
        return Launch((*argv, *model.extra_args), environment)

    def key_variable(self, model: ModelSpec) -> str:
        """For the starter, which hands it on."""
        return KEY_VARIABLE


def interpreter(model: ModelSpec, home: Path) -> Path:
    """The python that runs the engine: the model's own, else its environment's.

    With an image it is one in the image.
    """
    if model.image:
        return Path(model.interpreter or IMAGE_PYTHON)
    if model.interpreter:
        return Path(model.interpreter).expanduser()
    return environments.interpreter(model.environment_name, home)


def devices(place: Place) -> dict[str, str]:
    """The variables by which CUDA sees this engine's GPUs only."""
    return {
        # CUDA's own order is by speed, NVML's is by slot.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": place.visible,
    }


def _uneven(place: Place) -> dict[str, str]:
    """SGLang refuses a group whose GPUs differ in what is free, which sharing brings.

    Its fraction is of the least of them, so that each has what the engine takes.
    """
    if len(place.gpus) < 2 or not place.promised_bytes:
        return {}
    return {"SGLANG_ENABLE_TP_MEMORY_INBALANCE_CHECK": "false"}


def _parallel(model: ModelSpec, place: Place) -> list[str]:
    replicas = model.data_parallel
    argv = ["--tp-size", str(max(1, len(place.gpus) // replicas))]
    return [*argv, "--dp-size", str(replicas)] if replicas > 1 else argv


def kind_and_compile(model: ModelSpec) -> list[str]:
    """Its kind, and whether torch compiles it; SGLang's own way is not to."""
    argv = ["--is-embedding"] if model.kind is Kind.EMBEDDING else []
    return [*argv, "--enable-torch-compile"] if model.torch_compile else argv


def serve(model: ModelSpec, place: Place, home: Path) -> list[str]:
    """The beginning of the command, the same with and without GPUs."""
    python = interpreter(model, home)
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


def context(model: ModelSpec) -> list[str]:
    """Context and chunk size, which go together; SGLang's own where not given."""
    if model.context_length is None:
        return []
    chunk = max(1, model.context_length // CHUNKS_PER_CONTEXT)
    length = str(model.context_length)
    return ["--context-length", length, "--chunked-prefill-size", str(chunk)]
