"""Limits on draining and relaunching: how many engines at once, how often. Pure.

A guard is made for one look at the fleet and counts what is decided during it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from modelserver.policy.health.memory import RELAUNCH_TOKENS, EngineMemory, ModelMemory
from modelserver.policy.rolling import Budget
from modelserver.policy.snapshot import Snapshot
from modelserver.values import Cause, EngineReport

#: Seconds until a model gets one more relaunch.
RELAUNCH_TOKEN_SECONDS = 1200.0
#: Seconds until the same engine may be relaunched again; doubles each time.
COOLDOWN_SECONDS = 600.0
#: The most that these seconds can grow to.
COOLDOWN_MOST_SECONDS = 7200.0
#: The seconds of full speed within which relaunching a last engine has to pay.
PAYBACK_SECONDS = 1800.0
#: The share of the work gained in that time that the load may cost.
PAYBACK_SHARE = 0.25


def cooldown_seconds(relaunches: int) -> float:
    """Seconds until an engine with this number of relaunches may have the next.

    >>> [cooldown_seconds(count) for count in (1, 2, 3, 9)]
    [600.0, 1200.0, 2400.0, 7200.0]
    """
    doubled = COOLDOWN_SECONDS * 2.0 ** min(relaunches - 1, 10)
    return min(COOLDOWN_MOST_SECONDS, doubled)


def relaunch_pays(load_seconds: float, residual: float) -> bool:
    """Whether the last engine of a model gets more done if it is relaunched.

    ``residual`` is the logarithm of how many times slower it is. A load costs the work
    that the slow engine would do meanwhile; half an hour of full speed gains the rest.

    >>> relaunch_pays(300, math.log(3)), relaunch_pays(300, math.log(1.5))
    (True, False)
    """
    factor = math.exp(residual)
    gained = PAYBACK_SHARE * (1 - 1 / factor) * PAYBACK_SECONDS
    return load_seconds / factor <= gained


@dataclass(slots=True)
class Guard:
    """What may still be done to the engines at one look at the fleet."""

    snapshot: Snapshot
    budget: Budget
    now: float
    models: dict[str, ModelMemory] = field(default_factory=dict)
    #: The engines that were drained at this look.
    taken: set[str] = field(default_factory=set)

    @classmethod
    def of(
        cls,
        snapshot: Snapshot,
        budget: Budget,
        models: Mapping[str, ModelMemory],
        now: float,
    ) -> "Guard":
        """A guard that starts from what is remembered of the models."""
        counted = {
            spec.name: models.get(spec.name, ModelMemory(counted_at=now))
            for spec in snapshot.specs
        }
        return cls(snapshot, budget, now, counted)

    def spend_drain(
        self, engine: EngineReport, residual: float, hung: bool = False
    ) -> str:
        """Take an engine away; returns why that is refused, "" where not."""
        if not hung and not self.others_serve(engine):
            load = self.models[engine.model].load_seconds
            if not relaunch_pays(load, residual):
                return (
                    f"it is the last engine of {engine.model}, and a load of "
                    f"{load:.0f} s would not pay"
                )
        if not self.budget.take(engine.model):
            return f"as many engines of {engine.model} as may be down are down"
        self.taken.add(engine.id)
        return ""

    def spend_relaunch(self, engine: EngineReport, memory: EngineMemory) -> str:
        """Spend a relaunch of its model; returns why that is refused, "" where not."""
        refused = self.why_no_relaunch(engine, memory)
        if not refused:
            model = self.models[engine.model]
            left = relaunches_left(model, self.now) - 1
            self.models[engine.model] = replace(model, tokens=left, counted_at=self.now)
        return refused

    def why_no_relaunch(self, engine: EngineReport, memory: EngineMemory) -> str:
        """Why an engine may not be relaunched now, "" where it may; spends nothing."""
        if self.snapshot.wishes[engine.id].spec.url:
            return "somebody else runs it"
        # A last engine that hangs serves nobody, so a relaunch loses nothing.
        is_lost = memory.cause is Cause.HUNG and not self.others_serve(engine)
        if self.now < memory.relaunch_from and not is_lost:
            return f"it was relaunched {memory.relaunches} times of late"
        if relaunches_left(self.models[engine.model], self.now) < 1:
            return f"{engine.model} has been relaunched too often of late"
        return ""

    def others_serve(self, engine: EngineReport) -> bool:
        """Whether its model is still served without it."""
        return any(
            wish.spec.model == engine.model
            and name != engine.id
            and name not in self.taken
            and self.budget.serves(name)
            for name, wish in self.snapshot.wishes.items()
        )


def relaunches_left(model: ModelMemory, now: float) -> float:
    """The relaunches that a model has left now, those added since the count included.

    >>> relaunches_left(ModelMemory(tokens=0.5, counted_at=1000.0), now=1600.0)
    1.0
    """
    more = max(0.0, now - model.counted_at) / RELAUNCH_TOKEN_SECONDS
    return min(RELAUNCH_TOKENS, model.tokens + more)
