"""A model that control wants here and this host's fleet file does not have."""

from pathlib import Path

from launcher.engines.base import Launch, Place
from modelserver.errors import ConfigurationError
from modelserver.model import ModelSpec


class Absent:
    """Starts nothing and says what is wrong."""

    starts_process = True

    def prepare(self, model: ModelSpec, home: Path) -> None:
        """Raises ConfigurationError."""
        raise ConfigurationError(
            f'model "{model.name}" is not in the fleet file of this host; give all '
            "hosts the same fleet file and restart this launcher"
        )

    def launch(self, model: ModelSpec, place: Place, home: Path) -> Launch:
        """Never comes so far."""
        return Launch(())
