"""How long before its window a model has to ask for engines, so that they are ready."""

import math
from dataclasses import dataclass

from modelserver.policy.rebalance.state import RebalanceRules
from modelserver.schedules import ScheduledWindow
from modelserver.values import ModelSpec


@dataclass(frozen=True, slots=True)
class Lead:
    """What it takes to give a model another engine."""

    #: Until a donor has drained and an engine has loaded.
    move_seconds: float
    #: How many GPUs may move at once.
    gpus_at_once: int

    def seconds(
        self, window: ScheduledWindow, spec: ModelSpec, rules: RebalanceRules
    ) -> float:
        """The time to ask before the window, as if all its GPUs came from others."""
        engines = max(0, window.min_engines - spec.min_engines)
        rounds = math.ceil(engines * max(1, spec.gpus) / self.gpus_at_once)
        waits = engines * rules.pause_seconds
        noticed = (rules.hot_ticks + 1) * rules.tick_seconds
        return noticed + waits + rounds * self.move_seconds


def find_due_window(
    spec: ModelSpec, lead: Lead, rules: RebalanceRules, now: float
) -> ScheduledWindow | None:
    """The window that is in force or so near that engines have to come; else None."""
    due = (
        each
        for each in spec.schedule
        if each.covers(now, lead.seconds(each, spec, rules))
    )
    return max(due, key=lambda each: each.min_engines, default=None)
