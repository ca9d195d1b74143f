"""SGLang: on GPUs, and on a CPU for tests and for a first try."""

import json
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
#: Room for tokens; without it SGLang takes 15 GB and half a minute more.
MAX_TOTAL_TOKENS = 65_536
#: Tokens; where the model's section says nothing.
CONTEXT_LENGTH = 4096
CHUNKED_PREFILL_SIZE = 2048
#: Encoders that SGLang computes wrong vectors for if it splits or reuses their prompts.
ENCODERS = frozenset({"bert", "roberta", "xlm-roberta", "distilbert", "modernbert"})


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


class SGLangCPU:
    """``sglang serve --device cpu`` of the environment ``sglang-cpu``."""

    starts_process = True
    #: What its own warm-up, which is left out, ends with: a collection of all that
    #: was loaded keeps every request waiting for 0.4 s.
    settle_path = "/freeze_gc"

    def prepare(self, model: ModelSpec, home: Path) -> None:
        """Find the environment; write the builtin models where one is wanted."""
        builtin.ensure(model, interpreter(model, home), home)

    def launch(self, model: ModelSpec, place: Place, home: Path) -> Launch:
        """The command for one start; the fleet file's extra_args win, being last."""
        path = builtin.model_path(model, home)
        argv = [
            *serve(model, place, home),
            "--device",
            "cpu",
            # "auto" would take half precision, which no CPU here is quick at.
            "--dtype",
            "float32",
            "--attention-backend",
            "torch_native",
            "--disable-overlap-schedule",
            "--max-total-tokens",
            str(MAX_TOTAL_TOKENS),
            "--mem-fraction-static",
            "0.3",
            "--max-running-requests",
            str(model.max_running),
            *_prompts(model, path),
            "--enable-metrics",
            # READY is gated on a generated token anyway: the warm-up costs 2 s.
            "--skip-server-warmup",
            # Without it an idle engine keeps a core busy.
            "--sleep-on-idle",
        ]
        argv += kind_and_compile(model)
        environment = {
            **CLEAN,
            **GIVEN_UP,
            "SGLANG_USE_CPU_ENGINE": "1",
            # One thread per engine: 3 requests a second became 78.
            "OMP_NUM_THREADS": "1",
            **builtin.standins(model),
            # Children are forked, not spawned: they need not import torch again.
            "MODELSERVER_ENGINE_FORK": "1",
            **({"HF_HUB_OFFLINE": "1"} if Path(path).is_dir() else {}),
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


def _prompts(model: ModelSpec, path: str) -> list[str]:
    if model.kind is Kind.EMBEDDING and _is_encoder(Path(path)):
        return ["--disable-radix-cache", "--chunked-prefill-size", "-1"]
    return [
        "--context-length",
        str(model.context_length or CONTEXT_LENGTH),
        "--chunked-prefill-size",
        str(CHUNKED_PREFILL_SIZE),
    ]


def _is_encoder(folder: Path) -> bool:
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return False
    return config.get("model_type") in ENCODERS
