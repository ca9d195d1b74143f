"""One engine at one look: what is known of it, and what comes of it. Pure."""

from dataclasses import dataclass, replace
from typing import Any

from modelserver.policy.health.guards import Guard
from modelserver.policy.health.memory import EngineMemory, Health
from modelserver.policy.health.observation import Observation
from modelserver.policy.health.verdicts import Errors, Slow, SlowCanary, SpeedResidual


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found of an engine now. ``tick``: this look counts for the ticks.

    ``hung`` is the verdict in words; ``slowdown`` what its canaries measured, 0 before
    they are back.
    """

    tick: bool = False
    standing: SpeedResidual | None = None
    slow: Slow | SlowCanary | None = None
    errors: Errors | None = None
    hung: str = ""
    inflight: int = 0
    slowdown: float = 0.0


@dataclass(frozen=True, slots=True)
class EngineCase:
    """One engine at one look."""

    sight: Observation
    memory: EngineMemory
    found: Findings
    guard: Guard
    now: float

    def moved(self, health: Health, **values: Any) -> EngineMemory:
        """The memory in another health, since now."""
        return replace(self.memory, health=health, since=self.now, **values)

    @property
    def waited(self) -> float:
        """Seconds since it came where it stands."""
        return self.now - self.memory.since


@dataclass(frozen=True, slots=True)
class HealthMove:
    """What becomes of the memory; ``relaunch`` and ``alert`` are reasons, "" for no."""

    memory: EngineMemory
    relaunch: str = ""
    alert: str = ""
