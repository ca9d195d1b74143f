"""SGLang on GPUs."""

import math
from pathlib import Path

from launcher import environments
from launcher.engines import builtin
from launcher.engines.base import LOOPBACK, Launch, Place
from modelserver.model import Kind, ModelSpec

#: Share of a GPU's memory that stays free of weights and cache: activations and CUDA
#: graphs take it.
MARGIN_SHARE = 0.12
#: Prompts are read in pieces of this part of the context, so that a long one does not
#: hold up the others.
CHUNKS_PER_CONTEXT = 8
#: What would lead an environment's interpreter to the launcher's own packages, or keep
#: it from writing the bytecode that makes the next start short; empty is unset.
CLEAN = {"PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": ""}


class SGLang:
    """``sglang serve`` of the environment ``sglang``, one GPU per tensor rank."""

    starts_process = True

    def prepare(self, model: ModelSpec, home: Path) -> None:
        """Find the environment; write the builtin models where one is wanted."""
        builtin.ensure(model, interpreter(model, "sglang", home), home)

    def launch(self, model: ModelSpec, place: Place, home: Path) -> Launch:
        """The command for one start; the fleet file's extra_args win, being last."""
        argv = [
            *serve(model, place, "sglang", home),
            "--tp-size",
            str(max(1, len(place.gpus))),
            *context(model),
            "--mem-fraction-static",
            f"{mem_fraction(place.free_share):.2f}",
            "--max-running-requests",
            str(model.max_running),
            "--enable-metrics",
        ]
        if model.kind is Kind.EMBEDDING:
            argv.append("--is-embedding")
        environment = {
            **CLEAN,
            # CUDA's own order is by speed, NVML's is by slot.
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "CUDA_VISIBLE_DEVICES": ",".join(str(index) for index in place.gpus),
            **model.environment,
        }
        return Launch((*argv, *model.extra_args), environment)


def interpreter(model: ModelSpec, environment: str, home: Path) -> Path:
    """The python that runs the engine: the model's own, else the environment's."""
    if model.interpreter:
        return Path(model.interpreter).expanduser()
    return environments.interpreter(environment, home)


def serve(model: ModelSpec, place: Place, environment: str, home: Path) -> list[str]:
    """The beginning of the command, the same with and without GPUs."""
    python = interpreter(model, environment, home)
    return [
        str(python.with_name("sglang")),
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


def mem_fraction(free_share: float) -> float:
    """Share of a GPU for weights and cache, from what is free of it at launch.

    >>> mem_fraction(1.0), mem_fraction(0.9)
    (0.88, 0.78)
    """
    return max(0.1, math.floor((free_share - MARGIN_SHARE) * 100 + 1e-6) / 100)
