"""How fast an engine is by its requests, and whether it is slow. Pure.

Speed is the median of how much longer requests took than a fitted model expects,
compared with the engine's peers.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from statistics import median, median_low

from modelserver.policy.health.cost_model import Fit, row, spread
from modelserver.policy.health.verdicts import Slow, SlowTogether, SpeedResidual
from modelserver.values import EngineReport, Outcome, Sample

#: Speed is judged by the requests of the last 60 seconds.
RECENT_SECONDS = 60.0
#: Of those, the newest 40 count.
RECENT_MOST = 40
#: Where the last minute has fewer than ``FEWEST``, the last 600 seconds count.
OLDER_SECONDS = 600.0
#: Of those, the newest 12 count.
OLDER_MOST = 12
#: Fewer than 8 requests say nothing about speed.
FEWEST = 8
#: The standard error of a median over that of a mean, for a normal distribution.
MEDIAN_ERROR = 1.2533
#: An engine with peers is slow from 1.25 times the seconds that the fit expects ...
SLOW = 1.25
#: ... if it takes 1.4 times what its peers take, too.
SLOWER_THAN_PEERS = 1.4
#: An engine without peers is slow from 1.8 times the seconds that the fit expects.
SLOW_ALONE = 1.8
#: A slow engine is beyond its peers by at least 4 standard errors.
CERTAIN = 4.0
#: It is beyond them by at least 4.5 times what engines of its type wander, ...
WANDER_CERTAIN = 4.5
#: ... but more than 2.2 times as slow is never taken for wandering.
WANDER_MOST = 2.2
#: Where most engines of a model take 1.4 times the expected seconds, none is to blame.
SLOW_TOGETHER = 1.4


def find_speed(
    samples: Iterable[Sample], fit: Fit, offset: float, max_running: int, now: float
) -> SpeedResidual | None:
    """How fast an engine is by its answered requests, newest first; None: too few.

    ``offset`` is the engine's own level against the fit, as a logarithm.
    """
    answered = [
        (sample, now - sample.ended_at)
        for sample in samples
        if sample.outcome is Outcome.OK
    ]
    chosen = [each for each, age in answered if age <= RECENT_SECONDS][:RECENT_MOST]
    if len(chosen) < FEWEST:
        chosen = [each for each, age in answered if age <= OLDER_SECONDS][:OLDER_MOST]
    if len(chosen) < FEWEST:
        return None
    logs = [fit.log_ratio(row(each, max_running)) - offset for each in chosen]
    error = MEDIAN_ERROR * max(fit.sigma, spread(logs)) / math.sqrt(len(logs))
    return SpeedResidual(median(logs), error, len(logs))


@dataclass(frozen=True, slots=True)
class Comparison:
    """An engine against its peers. Speeds are logarithms of measured over expected."""

    #: How much slower than its peers it is.
    excess: float
    #: The median of its peers, 0 without any.
    level: float
    #: The standard error of ``excess``.
    error: float
    #: How many peers it was compared with.
    peers: int


def compare_with_peers(
    engine: str, speeds: Mapping[str, SpeedResidual], trusted: Collection[str]
) -> Comparison:
    """An engine whose speed is known against the other engines of its model.

    ``trusted`` are those that nobody suspects.
    """
    own = speeds[engine]
    peers = [speeds[name] for name in trusted if name != engine and name in speeds]
    if not peers:
        return Comparison(own.residual, 0.0, own.error, 0)
    level = median(peer.residual for peer in peers)
    shared = median(peer.error for peer in peers) / math.sqrt(len(peers))
    error = math.hypot(own.error, MEDIAN_ERROR * shared)
    return Comparison(own.residual - level, level, error, len(peers))


def find_slow(
    engine: EngineReport,
    speeds: Mapping[str, SpeedResidual],
    trusted: Collection[str],
    wander: float = 0.0,
) -> Slow | None:
    """The verdict that an engine is slow, against the other engines of its model.

    ``wander`` is how far engines of its type go up and down by themselves. Requests at
    one time share what their engine is up to then, so their scatter alone does not tell
    how sure the verdict is.
    """
    own = speeds.get(engine.id)
    if own is None:
        return None
    by = compare_with_peers(engine.id, speeds, trusted)
    least = SLOW if by.peers else SLOW_ALONE
    if by.peers and by.excess < math.log(SLOWER_THAN_PEERS):
        return None
    certain = max(CERTAIN * by.error, math.log(beyond_wander(wander)))
    if own.residual < math.log(least) or by.excess < certain:
        return None
    return Slow(
        engine.id,
        engine.incarnation,
        own.residual,
        by.level,
        by.error,
        own.requests,
        by.peers,
        wander,
    )


def beyond_wander(wander: float) -> float:
    """How many times slower an engine is only by a fault, where engines wander so far.

    >>> [round(beyond_wander(each), 2) for each in (0.0, 0.1, 0.3)]
    [1.0, 1.57, 2.2]
    """
    return min(WANDER_MOST, math.exp(WANDER_CERTAIN * wander))


def find_slow_together(
    model: str, speeds: Collection[SpeedResidual], times: float = SLOW_TOGETHER
) -> SlowTogether | None:
    """The verdict that most engines of a model are slow; None for a single engine.

    It takes both of two engines and three of four: the lower median must be slow.
    """
    if len(speeds) < 2:
        return None
    level = median_low(each.residual for each in speeds)
    if level < math.log(times):
        return None
    return SlowTogether(model, level, len(speeds))
