"""A model that control wants here and the fleet in force does not have."""

from pathlib import Path

from launcher.engine_types.base import Launch, Place
from modelserver.errors import ConfigurationError
from modelserver.values import ModelSpec


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
