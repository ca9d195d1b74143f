"""What the launcher must know to run an engine of some type."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from modelserver.model import ModelSpec

#: Engines listen for this host's worker only.
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Place:
    """Where one engine runs: its port, its GPUs, and the share of them that is free.

    ``free_share`` is that of the fullest of these GPUs, 0 to 1.
    """

    port: int
    gpus: tuple[int, ...] = ()
    free_share: float = 1.0


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one engine; ``environment`` comes on top of the launcher's own."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


class Adapter(Protocol):
    """One type of engine. Has no state and starts nothing."""

    @property
    def starts_process(self) -> bool:
        """False where somebody else runs the engine."""
        ...

    def prepare(self, model: ModelSpec, home: Path) -> None:
        """Provide what has to be there before a start; may take many seconds.

        Raises EngineEnvironmentError where the engine is not installed.
        """
        ...

    def launch(self, model: ModelSpec, place: Place, home: Path) -> Launch:
        """The command for one start.

        Raises ConfigurationError where the model's section makes no command.
        """
        ...
