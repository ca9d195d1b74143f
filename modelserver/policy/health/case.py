"""One engine at one look: what was found of it, and what becomes of it. Pure."""

import math
from dataclasses import dataclass, replace
from typing import Any

from modelserver.policy.health.guards import Guard
from modelserver.policy.health.memory import EngineMemory, Health
from modelserver.policy.health.observation import Observation
from modelserver.policy.health.speed import SLOWER_THAN_PEERS
from modelserver.policy.health.verdicts import AnySlow, Errors, SpeedResidual


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found of an engine at one look."""

    #: Whether this look is a tick.
    tick: bool = False
    #: How fast it is by its requests; None if they are too few.
    speed: SpeedResidual | None = None
    slow: AnySlow | None = None
    errors: Errors | None = None
    #: The verdict that it hangs, in words; "" if it does not.
    hung: str = ""
    #: The requests that it has now.
    inflight: int = 0
    #: What its canaries take over their baselines; 0 before they are back.
    slowdown: float = 0.0
    #: How much slower all engines of its model are now, as a logarithm.
    common: float = 0.0
    #: Whether more engines than may be down are slow for what they are asked, as it is.
    is_one_of_many: bool = False
    #: The engine that is verified for it, or itself for others, "" for none.
    verified: str = ""
    #: What becomes of it as canaries of one that is as slow passed; None if none did.
    let_off: EngineMemory | None = None


@dataclass(frozen=True, slots=True)
class EngineCase:
    """One engine at one look: what is known of it, and what may be done about it."""

    observation: Observation
    memory: EngineMemory
    found: Findings
    guard: Guard
    now: float

    def moved(self, health: Health, **values: Any) -> EngineMemory:
        """The memory in another health, since now."""
        return replace(self.memory, health=health, since=self.now, **values)

    @property
    def waited(self) -> float:
        """Seconds since its health was last another."""
        return self.now - self.memory.since

    @property
    def is_common(self) -> bool:
        """Whether its canaries are no slower than all engines of its model are now."""
        common, slowdown = self.found.common, self.found.slowdown
        return common > 0 and math.log(slowdown) < common + math.log(SLOWER_THAN_PEERS)


@dataclass(frozen=True, slots=True)
class Transition:
    """What becomes of an engine after one look."""

    memory: EngineMemory
    #: Why it is to be relaunched, "" if it is not.
    relaunch: str = ""
    #: What people are to be told, "" for nothing.
    alert: str = ""
