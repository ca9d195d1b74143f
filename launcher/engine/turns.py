"""Whose turn it is to load a model's files."""

from launcher.engine_types import builtin
from launcher.host.resources import HostResources
from launcher.startup_log.weights import weights_of
from modelserver.errors import ConfigurationError
from modelserver.values import EngineSpec, ModelSpec


def find_turn(spec: EngineSpec, model: ModelSpec, resources: HostResources) -> str:
    """The engine whose turn it is to load this model's files, "" for this one."""
    if not (model.load_in_turns and model.path):
        return ""
    variables = resources.secrets.known(model)
    try:
        path = builtin.model_path(model, resources.home)
    except ConfigurationError:
        return ""  # Its command will say so.
    return resources.turns.take(spec.id, weights_of(path, variables).place)
