"""Engines without an environment of ours.

A command of the fleet file, an engine that somebody else runs, and a model that is not
in the fleet.
"""

import string
from pathlib import Path

from launcher.engine_types import builtin
from launcher.engine_types.base import LOOPBACK, Launch, Place
from modelserver.errors import ConfigurationError
from modelserver.values import ModelSpec


class Command:
    """The model's ``command``, with ``{port}`` and the like filled in."""

    starts_process = True
    settle_path = ""

    def prepare(self, model: ModelSpec, home: Path) -> None:
        """Nothing: what the command needs is its author's business."""

    def launch(self, model: ModelSpec, place: Place, home: Path) -> Launch:
        """The command for one start. Raises ConfigurationError for a bad template."""
        values = {
            "port": str(place.port),
            "host": LOOPBACK,
            "model": model.name,
            "path": builtin.model_path(model, home),
        }
        words = (*model.command, *model.extra_args)
        argv = tuple(_fill(model, word, values) for word in words)
        environment = dict(model.environment)
        if place.gpus:
            environment = {
                "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
                "CUDA_VISIBLE_DEVICES": place.visible,
                **environment,
            }
        return Launch(argv, environment)

    def key_variable(self, model: ModelSpec) -> str:
        """What the fleet file names; a command may know of no key."""
        return model.api_key_env


class External:
    """Knows no command."""

    starts_process = False
    settle_path = ""

    def prepare(self, model: ModelSpec, home: Path) -> None:
        """Nothing."""

    def launch(self, model: ModelSpec, place: Place, home: Path) -> Launch:
        """An empty command, which is not started."""
        return Launch(())

    def key_variable(self, model: ModelSpec) -> str:
        """None: its key is its owner's business."""
        return ""


class Absent:
    """Starts nothing and says what is wrong."""

    starts_process = True
    settle_path = ""

    def prepare(self, model: ModelSpec, home: Path) -> None:
        """Raises ConfigurationError."""
        raise ConfigurationError(
            f'model "{model.name}" is not in the fleet in force; add it to the fleet '
            "file and run `modelserver apply`"
        )

    def launch(self, model: ModelSpec, place: Place, home: Path) -> Launch:
        """Never comes so far."""
        return Launch(())

    def key_variable(self, model: ModelSpec) -> str:
        """None."""
        return ""


def _fill(model: ModelSpec, word: str, values: dict[str, str]) -> str:
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(word)]
        unknown = [name for name in names if name is not None and name not in values]
        if not unknown:
            return word.format_map(values)
        problem = f"{{{unknown[0]}}} is no placeholder"
    except ValueError as error:
        problem = str(error)
    known = ", ".join(f"{{{name}}}" for name in values)
    raise ConfigurationError(
        f'model "{model.name}": command has "{word}": {problem}; placeholders are '
        f"{known}, and a brace itself is written twice"
    )
