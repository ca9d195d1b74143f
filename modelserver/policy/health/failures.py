"""Whether an engine fails at more requests than chance and its peers explain. Pure."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from modelserver.measured import Sample
from modelserver.policy.health.memory import EngineMemory
from modelserver.policy.health.observation import Observation
from modelserver.policy.health.speed import RECENT_SECONDS
from modelserver.policy.health.verdicts import Errors
from modelserver.values import Outcome

#: The normal quantile of Wilson's bound: 99.5 % sure.
ERROR_Z = 2.58
#: The share of requests at which any engine may fail.
ERROR_SHARE = 0.05
#: It may also fail at 3 times the share of its peers, if that is more.
ERROR_PEERS = 3.0
#: Its share is beyond that of its peers by at least 3.3 standard errors.
ERROR_CERTAIN = 3.3
#: The normal quantile of Wilson's upper bound for the half of its peers that fails
#: least: 95 % sure.
BEST_Z = 1.64
#: An engine without peers may fail at half: nothing tells whether its requests do.
ERROR_ALONE = 0.5
#: Fewer than 10 requests say nothing about errors.
ERROR_FEWEST = 10
#: Seconds by which the times of a fault and of what withdraws it may differ.
ROUNDING_SECONDS = 0.01
#: The outcomes that tell how an engine does.
SAY_SOMETHING = frozenset(each for each in Outcome if each.says_something)

#: The requests of an engine that failed, and all.
Counts = tuple[int, int]


class Failures:
    """The failed requests of engines beside those of their peers, at one look."""

    def __init__(
        self,
        observations: Mapping[str, Observation],
        engines: Mapping[str, EngineMemory],
        now: float,
    ) -> None:
        self._own = {
            name: count_failures(observation.fresh_samples(engines[name]), now)
            for name, observation in observations.items()
        }
        self._of_model: defaultdict[str, list[str]] = defaultdict(list)
        for name, observation in observations.items():
            self._of_model[observation.spec.name].append(name)

    def find_errors_of(self, observation: Observation) -> Errors | None:
        """The verdict that an engine fails too often."""
        report, of_model = observation.report, self._of_model[observation.spec.name]
        peers = [self._own[name] for name in of_model if name != report.id]
        own = self._own[report.id]
        return find_errors(report.id, report.incarnation, own, peers)


def count_failures(samples: Iterable[Sample], now: float) -> Counts:
    """Requests of the last minute: those that failed by the engine's fault, and all.

    A request that was refused for its own fault shows an engine that works, and so does
    one whose fault was withdrawn. What failed again or was cancelled is not counted.
    """
    every = list(samples)
    requests = sum(
        each.outcome in SAY_SOMETHING
        for each in every
        if now - each.ended_at <= RECENT_SECONDS
    )
    failed = sum(is_recent(each, now) for each in find_faults(every))
    return failed, requests


def is_recent(sample: Sample, now: float) -> bool:
    """Whether a request ended within the last minute."""
    return now - sample.ended_at <= RECENT_SECONDS


def find_faults(samples: Iterable[Sample]) -> list[Sample]:
    """The failed requests that count against an engine, newest first.

    What withdraws a fault has in ``seconds`` how long ago that fault was. So it takes
    away that one or, where only its order is known, the last one before it; and none
    where the fault is from before these samples.
    """
    faults, withdrawn = [], []
    for each in samples:
        if each.outcome is Outcome.ENGINE_FAULT:
            faults.append(each)
        elif each.outcome is Outcome.WITHDRAWN:
            withdrawn.append(each.ended_at - each.seconds + ROUNDING_SECONDS)
    faults.sort(key=lambda each: each.ended_at, reverse=True)
    for at in sorted(withdrawn):
        taken = next((n for n, each in enumerate(faults) if each.ended_at <= at), None)
        if taken is not None:
            del faults[taken]
    return faults


def answers_nothing(samples: Iterable[Sample]) -> bool:
    """Whether an engine failed at all of its last requests, so that none can pass."""
    every = list(samples)
    last = [each for each in every if each.outcome.says_something][:ERROR_FEWEST]
    faults = find_faults(every)
    return len(last) == ERROR_FEWEST and faults[:ERROR_FEWEST] == last


def find_errors(
    engine: str,
    incarnation: int,
    own: Counts,
    peers: Collection[Counts],
) -> Errors | None:
    """The verdict that an engine fails too often.

    Where many do, it may do so beside the better half of its peers only.
    """
    failed, requests = own
    if requests < ERROR_FEWEST:
        return None
    least, every = wilson_bound(failed, requests), _added(peers)
    allowed = ERROR_ALONE
    if every[1]:
        allowed = max(ERROR_SHARE, ERROR_PEERS * every[0] / every[1])
    if least > allowed and _is_beyond_chance(own, every):
        return Errors(engine, incarnation, failed, requests, least, allowed)
    best = _added(_better_half(peers))
    if not best[1]:
        return None
    allowed = max(ERROR_SHARE, ERROR_PEERS * wilson_bound(*best, -BEST_Z))
    if least <= allowed or not _is_beyond_chance(own, best):
        return None
    return Errors(engine, incarnation, failed, requests, least, allowed, of_many=True)


def _better_half(peers: Collection[Counts]) -> list[Counts]:
    """The half that fails least, of those that had enough requests to tell."""
    told = [each for each in peers if each[1] >= ERROR_FEWEST]
    told.sort(key=lambda each: each[0] / each[1])
    return told[: math.ceil(len(told) / 2)]


def _added(counts: Iterable[Counts]) -> Counts:
    every = list(counts)
    return sum(each[0] for each in every), sum(each[1] for each in every)


def _is_beyond_chance(own: Counts, peers: Counts) -> bool:
    """Whether it fails more often than its peers by more than few requests may differ.

    This is the pooled test of two shares; without peers there is nothing to compare.
    """
    if not peers[1]:
        return True
    pooled = (own[0] + peers[0]) / (own[1] + peers[1])
    error = math.sqrt(pooled * (1 - pooled) * (1 / own[1] + 1 / peers[1]))
    return own[0] / own[1] - peers[0] / peers[1] >= ERROR_CERTAIN * error


def wilson_bound(hits: float, trials: float, z: float = ERROR_Z) -> float:
    """The lower end of Wilson's score interval for a share; the upper for ``-z``.

    >>> round(wilson_bound(10, 50), 3)
    0.094
    """
    share, square = hits / trials, z * z / trials
    centre = share + square / 2
    half = z * math.sqrt(share * (1 - share) / trials + square / (4 * trials))
    return (centre - half) / (1 + square)
