"""How long a request would wait for its answer, by what is measured of its model. Pure.

The estimate is the least that it can be: whoever is refused by it could not have been
answered in time, and some who are not refused may still come too late.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from modelserver.measured import Sample
from modelserver.store.keys import SAMPLES_KEPT
from modelserver.values import EngineReport, Outcome

#: Answers count for so long, in seconds.
MEASURED_SECONDS = 60.0
#: A refused request may be sent again after so many seconds at most.
LONGEST_RETRY_SECONDS = 3_600


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """One model at one look."""

    #: When it was looked at, by the monotonic clock.
    at: float
    #: What waits by priority, the most urgent first: messages by their submitter.
    queued: Sequence[Mapping[str, int]] = ()
    #: Requests that its engines take at once, and those that they have.
    places: int = 0
    inflight: int = 0
    #: How many requests were answered in a second, of late.
    rate: float = 0.0
    #: What one of those took, as a mean, and what the quickest took.
    mean_seconds: float = 0.0
    quickest_seconds: float = 0.0
    #: Seconds until the next engine is ready, by what a start took before; None where
    #: that is not known or nothing starts.
    ready_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Newcomer:
    """Requests that come together, and how they stand in their queue."""

    #: The place of their priority, 0 for the most urgent.
    step: int
    submitter: str
    #: How many they are.
    calls: int
    #: Seconds within which all are to be answered.
    deadline: float


def count_ahead(load: ModelLoad, comer: Newcomer) -> int:
    """Requests that are answered before: submitters of one priority take turns.

    >>> load = ModelLoad(0.0, ({"ana": 3}, {"ana": 100, "bob": 1}, {"filler": 9_000}))
    >>> count_ahead(load, Newcomer(1, "bob", 1, 60.0))
    6
    """
    more_urgent = sum(sum(each.values()) for each in load.queued[: comer.step])
    beside = load.queued[comer.step] if comer.step < len(load.queued) else {}
    own = beside.get(comer.submitter, 0)
    others = (n for who, n in beside.items() if who != comer.submitter)
    return more_urgent + own + sum(min(n, own + comer.calls) for n in others)


def find_least_seconds(
    load: ModelLoad, comer: Newcomer, sent: int, now: float
) -> float | None:
    """The least time in which all can be answered; None where nothing is measured.

    ``sent`` requests have joined the queue since the look.
    """
    if not load.places:
        return load.ready_seconds
    if not load.mean_seconds:
        return None
    # Engines that were not full answer more than they did.
    rate = max(load.rate, load.places / load.mean_seconds)
    ahead = max(0.0, count_ahead(load, comer) + sent - rate * (now - load.at))
    free = max(0, load.places - load.inflight)
    if ahead + comer.calls <= free:
        return 0.0
    return max(0.0, ahead + comer.calls - 1 - free) / rate + load.quickest_seconds


def find_retry_seconds(
    load: ModelLoad, comer: Newcomer, sent: int, now: float
) -> int | None:
    """When to come again, in seconds, if the deadline cannot be met; else None."""
    least = find_least_seconds(load, comer, sent, now)
    if least is None or least <= comer.deadline:
        return None
    return min(LONGEST_RETRY_SECONDS, max(1, math.ceil(least - comer.deadline)))


def find_ready_seconds(
    starting: Iterable[EngineReport], took: float | None, now: float
) -> float | None:
    """When the next engine is ready, if its start takes as long as one took before.

    None where that is not known, or is over already.
    """
    if took is None:
        return None
    left = min((each.since + took - now for each in starting), default=0.0)
    return left if left > 0 else None


def answered_of_late(samples: Iterable[Sample], now: float) -> list[Sample]:
    """Those that were answered in the last minute."""
    return [
        each
        for each in samples
        if each.outcome is Outcome.OK and now - each.ended_at < MEASURED_SECONDS
    ]


def find_rate(samples: Sequence[Sample], now: float) -> float:
    """Answers a second of an engine, by its last samples, of which not all are kept."""
    answered = answered_of_late(samples, now)
    is_whole = len(samples) < SAMPLES_KEPT or len(answered) < len(samples)
    first = min((each.ended_at for each in answered), default=now)
    seconds = MEASURED_SECONDS if is_whole else max(now - first, 1.0)
    return len(answered) / seconds
