"""An engine that somebody else runs: it is watched and used, never started."""

from pathlib import Path

from launcher.engine_types.base import Launch, Place
from modelserver.values import ModelSpec


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
