"""Whether the requests of a model fail on all its engines, so that people know. Pure.

Such requests are at fault themselves, or something is that all engines share. No engine
is relaunched for them, so an alert is all that follows.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from modelserver.policy.health.failures import (
    ERROR_FEWEST,
    find_faults,
    is_recent,
    wilson_bound,
)
from modelserver.policy.health.leaving import passed_lately
from modelserver.policy.health.memory import EngineMemory, Health, ModelMemory
from modelserver.policy.health.observation import Observation
from modelserver.policy.health.speed import RECENT_SECONDS
from modelserver.policy.health.telling import comes_and_goes, stands
from modelserver.policy.health.verdicts import FailingTogether
from modelserver.values import Cause, Outcome

#: What is recorded of requests that are at fault themselves.
AT_FAULT = (Outcome.WITHDRAWN, Outcome.REQUEST_FAULT)
#: People are told when surely more than 5 % of the requests of a minute fail ...
TOLD_SHARE = 0.05
#: ... at 3 ticks in a row; ...
TOLD_TICKS = 3
#: ... and again when fewer than 2.5 % did at as many.
OVER_SHARE = 0.025


def count_failing(
    models: Iterable[str],
    observations: Mapping[str, Observation],
    engines: Mapping[str, EngineMemory],
    now: float,
) -> list[FailingTogether]:
    """How many requests of each model failed in the last minute, wherever they ran.

    Leaves out engines that fail more often than the others, unless canaries cleared
    them of that lately, those known to fail, and those that are taken away.
    """
    counts = {model: Counter[str]() for model in models}
    for name, observation in observations.items():
        own = engines[name]
        fails = any(own.error_ticks[-1:]) and not passed_lately(own, now)
        fails = fails or (own.health is Health.DEGRADED and own.cause is Cause.ERRORS)
        if own.health.is_held or fails:
            continue
        every = observation.fresh_samples(own)
        found = counts[observation.spec.name]
        found["failed"] += sum(is_recent(each, now) for each in find_faults(every))
        recent = Counter(
            each.outcome for each in every if now - each.ended_at <= RECENT_SECONDS
        )
        found["at fault"] += sum(recent[outcome] for outcome in AT_FAULT)
        found["answered"] += recent[Outcome.OK]
    return [
        FailingTogether(model, found["at fault"], found["failed"], found.total())
        for model, found in counts.items()
    ]


def is_found(failing: FailingTogether) -> bool:
    """Whether so many requests fail that people should know."""
    if failing.requests < ERROR_FEWEST:
        return False
    hits = failing.at_fault + failing.failed
    return wilson_bound(hits, failing.requests) > TOLD_SHARE


def with_failing(
    old: ModelMemory, failing: FailingTogether, now: float
) -> tuple[ModelMemory, str]:
    """What is remembered of a model after a tick, and what people are told of it.

    Where it comes and goes it stands until it has stayed away.
    """
    turns = failing.share < OVER_SHARE if old.failing else is_found(failing)
    told = old.failing_told
    if old.failing and not turns:
        told, _ = stands(told, now, begins=False)
    ticks = old.failing_ticks + 1 if turns else 0
    if ticks < TOLD_TICKS or (old.failing and comes_and_goes(told, now)):
        return replace(old, failing_ticks=ticks, failing_told=told), ""
    text = "" if old.failing else failing.text
    if text:
        told, _ = stands(told, now, begins=True)
    over = f"the requests of {failing.model} do not fail any longer, or there are none"
    new = replace(old, failing=text, failing_ticks=0, failing_told=told)
    return new, text or over
