"""Launches of engines, for tests of their exact commands."""

from pathlib import Path
from typing import Any

from launcher.engine_types import Launch, Place, adapter
from modelserver.inventory import GIB
from modelserver.values import Kind, ModelSpec

HOME = Path("/home/ms")
PYTHON = "/env/bin/python"


def on_gpus(engine: str, kind: Kind = Kind.COMPLETION, **values: Any) -> Launch:
    """The launch of an engine on four GPUs."""
    model = ModelSpec(
        name="qwen",
        kind=kind,
        path="Qwen/Qwen3-8B",
        engine=engine,
        gpus=4,
        interpreter=PYTHON,
        **values,
    )
    uuids = ("GPU-a", "GPU-b", "GPU-c", "GPU-d")
    place = Place(
        30005,
        (0, 1, 2, 3),
        uuids=uuids,
        free_bytes=80 * GIB,
        total_bytes=80 * GIB,
    )
    return adapter(engine).launch(model, place, HOME)
