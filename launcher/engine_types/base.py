"""What the launcher must know to run an engine of some type."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from modelserver.values import ModelSpec

#: Engines listen for this host's worker only.
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Place:
    """Where one engine runs: its port and its GPUs, as they were just before its start.

    ``gpus`` are indexes for people, ``uuids`` name the same GPUs for CUDA.
    ``total_bytes`` and ``free_bytes`` are those of the GPU that has least, 0 where
    there are no figures. ``promised_bytes`` is what the engine may take of each, 0 for
    all that is free.
    """

    port: int
    gpus: tuple[int, ...] = ()
    uuids: tuple[str, ...] = ()
    free_bytes: int = 0
    total_bytes: int = 0
    promised_bytes: int = 0

    @property
    def visible(self) -> str:
        """``CUDA_VISIBLE_DEVICES``: UUIDs, since CUDA's numbers are not NVML's."""
        return ",".join(self.uuids or map(str, self.gpus))


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

    @property
    def settle_path(self) -> str:
        """What to post to, once, after the first token; "" for nothing."""
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

    def key_variable(self, model: ModelSpec) -> str:
        """The environment variable that gives the engine its API key, "" for none."""
        ...
