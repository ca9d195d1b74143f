"""Engines without an environment of ours.

A command of the fleet file, an engine that somebody else runs, and a model that is not
in the fleet.
"""

from pathlib import Path

from launcher.engine_types import builtin
from launcher.engine_types.base import LOOPBACK, Launch, Place, Untold, gpu_variables
from modelserver.errors import ConfigurationError
from modelserver.fleet.arguments import find_placeholder_problem
from modelserver.values import ModelSpec


class Command(Untold):
    """The model's ``command``, with ``{port}`` and the like filled in."""

    starts_process = True
    settle_path = ""

    def prepare(self, model: ModelSpec, home: Path) -> None:
        """Nothing: whoever wrote the command provides what it needs."""

    def launch(self, model: ModelSpec, place: Place, home: Path) -> Launch:
        """The command for one start. Raises ConfigurationError for a bad template."""
        values = {
            "port": str(place.port),
            "host": LOOPBACK,
            "model": model.name,
            "path": builtin.model_path(model, home),
            "index": str(place.index),
            "gpus": ",".join(map(str, place.gpus)),
            "node": str(place.meeting.node if place.meeting else 0),
            "nodes": str(model.nodes),
            "meeting": str(place.meeting or ""),
        }
        words = (*model.command, *model.extra_args)
        argv = tuple(_fill(model, word, values) for word in words)
        environment = dict(model.environment)
        if place.gpus:
            environment = gpu_variables(place) | environment
        return Launch(argv, environment)

    def key_variable(self, model: ModelSpec) -> str:
        """The variable that the fleet file names, "" where the command takes no key."""
        return model.api_key_env


class External(Untold):
    """An engine that somebody else runs: it is watched and used, never started."""

    starts_process = False
    settle_path = ""

    def prepare(self, model: ModelSpec, home: Path) -> None:
        """Nothing."""

    def launch(self, model: ModelSpec, place: Place, home: Path) -> Launch:
        """An empty command, which is not started."""
        return Launch(())

    def key_variable(self, model: ModelSpec) -> str:
        """None: whoever runs it gives it its key."""
        return ""


class Absent(Untold):
    """A model that control wants here and the fleet in force does not have."""

    starts_process = True
    settle_path = ""

    def prepare(self, model: ModelSpec, home: Path) -> None:
        """Raises ConfigurationError, which says what is wrong."""
        raise ConfigurationError(
            f'model "{model.name}" is not in the fleet in force; add it to the fleet '
            "file and run `modelserver apply`"
        )

    def launch(self, model: ModelSpec, place: Place, home: Path) -> Launch:
        """Not called: ``prepare`` fails before."""
        return Launch(())

    def key_variable(self, model: ModelSpec) -> str:
        """None."""
        return ""


def _fill(model: ModelSpec, word: str, values: dict[str, str]) -> str:
    # Whoever made the fleet in force may have known other placeholders.
    if problem := find_placeholder_problem(word):
        raise ConfigurationError(f'model "{model.name}": {problem}')
    return word.format_map(values)
