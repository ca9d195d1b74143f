"""What control may do to the engines of a model, and how often. Pure.

A guard is made for one look at the fleet and counts what is decided during it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from modelserver.policy.health.memory import TOKENS, EngineMemory, ModelMemory
from modelserver.policy.rolling import Budget
from modelserver.policy.snapshot import Snapshot
from modelserver.values import Cause, EngineReport

#: Seconds until a model may be relaunched once more often.
TOKEN_SECONDS = 1200.0
#: Seconds until the same engine may be relaunched again; twice as long each time.
COOLDOWN_SECONDS, COOLDOWN_MOST_SECONDS = 600.0, 7200.0
#: A last engine is relaunched if that pays back within this part of so many seconds.
PAYBACK_SHARE, PAYBACK_SECONDS = 0.25, 1800.0


def cooldown_seconds(relaunches: int) -> float:
    """How long an engine that was relaunched so many times of late is left alone.

    >>> [cooldown_seconds(count) for count in (1, 2, 3, 9)]
    [600.0, 1200.0, 2400.0, 7200.0]
    """
    doubled = COOLDOWN_SECONDS * 2.0 ** min(relaunches - 1, 10)
    return min(COOLDOWN_MOST_SECONDS, doubled)


def pays(load_seconds: float, residual: float) -> bool:
    """Whether the last engine of a model does more if it is down for a load.

    With it being slow by the factor rho, a load costs the work of load over rho
    seconds; half an hour of full speed gains the rest.

    >>> pays(300, math.log(3)), pays(300, math.log(1.5))
    (True, False)
    """
    factor = math.exp(residual)
    gained = PAYBACK_SHARE * (1 - 1 / factor) * PAYBACK_SECONDS
    return load_seconds / factor <= gained


@dataclass(slots=True)
class Guard:
    """The budget, the tokens and the last engines of one look at the fleet."""

    snapshot: Snapshot
    budget: Budget
    now: float
    models: dict[str, ModelMemory] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)

    @classmethod
    def of(
        cls,
        snapshot: Snapshot,
        budget: Budget,
        models: Mapping[str, ModelMemory],
        now: float,
    ) -> "Guard":
        """A guard for what is remembered of the models."""
        counted = {
            spec.name: models.get(spec.name, ModelMemory(counted_at=now))
            for spec in snapshot.specs
        }
        return cls(snapshot, budget, now, counted)

    def refuses_down(
        self, engine: EngineReport, residual: float, hung: bool = False
    ) -> str:
        """Why an engine may not be taken away now; "" takes it away."""
        if not hung and not self.others_serve(engine):
            load = self.models[engine.model].load_seconds
            if not pays(load, residual):
                return (
                    f"it is the last engine of {engine.model}, and a load of "
                    f"{load:.0f} s would not pay"
                )
        if not self.budget.take(engine.model):
            return f"as many engines of {engine.model} as may be down are down"
        self.taken.add(engine.id)
        return ""

    def refuses_relaunch(self, engine: EngineReport, memory: EngineMemory) -> str:
        """Why an engine may not be relaunched now; "" spends a token."""
        refused = self.forbids_relaunch(engine, memory)
        if not refused:
            model = self.models[engine.model]
            left = tokens_left(model, self.now) - 1
            self.models[engine.model] = replace(model, tokens=left, counted_at=self.now)
        return refused

    def forbids_relaunch(self, engine: EngineReport, memory: EngineMemory) -> str:
        """The same without spending anything."""
        if self.snapshot.wishes[engine.id].spec.url:
            return "somebody else runs it"
        # The last engine of a model serves nobody while it hangs: nothing is lost.
        is_lost = memory.cause is Cause.HUNG and not self.others_serve(engine)
        if self.now < memory.relaunch_from and not is_lost:
            return f"it was relaunched {memory.relaunches} times of late"
        if tokens_left(self.models[engine.model], self.now) < 1:
            return f"{engine.model} has been relaunched too often of late"
        return ""

    def others_serve(self, engine: EngineReport) -> bool:
        """Whether its model would still be served without it."""
        return any(
            wish.spec.model == engine.model
            and name != engine.id
            and name not in self.taken
            and self.budget.serves(name)
            for name, wish in self.snapshot.wishes.items()
        )


def tokens_left(model: ModelMemory, now: float) -> float:
    """The relaunches that a model has now: those it had, and what came since.

    >>> tokens_left(ModelMemory(tokens=0.5, counted_at=1000.0), now=1600.0)
    1.0
    """
    more = max(0.0, now - model.counted_at) / TOKEN_SECONDS
    return min(TOKENS, model.tokens + more)
