"""Whose turn it is to load a model's files."""

import asyncio
from pathlib import Path

from launcher.engine_types import builtin
from launcher.host.resources import HostResources
from launcher.startup_log.weights import weights_of
from modelserver.errors import ConfigurationError
from modelserver.values import EngineSpec, ModelSpec


async def find_turn(
    spec: EngineSpec, model: ModelSpec, resources: HostResources
) -> str:
    """The engine whose turn it is to load this model's files, "" for this one."""
    if not (model.load_in_turns and model.path):
        return ""
    # In a thread: the disk that they are on may not answer.
    files = await asyncio.to_thread(_find_files, model, resources)
    return resources.turns.take(spec.id, files) if files else ""


def _find_files(model: ModelSpec, resources: HostResources) -> Path | None:
    variables = resources.secrets.known(model)
    try:
        path = builtin.model_path(model, resources.home)
    except ConfigurationError:
        return None  # Its command will say so.
    return weights_of(path, variables).place.resolve()
