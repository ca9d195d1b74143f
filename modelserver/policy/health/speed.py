"""How fast an engine is by its requests, and whether it is slow. Pure.

Speed is the median of how much longer requests took than a fitted model expects,
compared with the engine's peers.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from statistics import median, median_low

from modelserver.measured import Sample
from modelserver.policy.health.cost_model import Fit, spread
from modelserver.policy.health.verdicts import (
    Slow,
    SlowTogether,
    SpeedResidual,
    Track,
)
from modelserver.values import EngineReport, Outcome

#: Speed is judged by the requests of the last 60 seconds.
RECENT_SECONDS = 60.0
#: Of those, the newest 40 count.
RECENT_MOST = 40
#: Where the last minute has fewer than ``FEWEST``, the last 600 seconds count.
OLDER_SECONDS = 600.0
#: Of those, the newest 12 count.
OLDER_MOST = 12
#: Requests that ended within 60 seconds of each other are of the same time.
SAME_TIME_SECONDS = 60.0
#: A moment of an engine's is compared with at least 2 requests of its peers.
FEWEST_OF_PEERS = 2
#: Fewer than 8 requests say nothing about speed.
FEWEST = 8
#: The standard error of a median over that of a mean, for a normal distribution.
MEDIAN_ERROR = 1.2533
#: An engine with peers is slow from 1.25 times the seconds that the fit expects ...
SLOW = 1.25
#: ... if it takes 1.4 times what its peers take, too.
SLOWER_THAN_PEERS = 1.4
#: Requests that take less than 1.12 times the expected seconds are well.
WELL = math.sqrt(SLOW)
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
#: No engine's requests.
NO_TRACKS: Mapping[str, Track] = {}


def track_of(
    samples: Iterable[Sample], fit: Fit, offset: float, max_running: int, now: float
) -> Track:
    """The answered requests that may count, newest first, against their fit.

    ``offset`` is the engine's own level against the fit, as a logarithm.
    """
    since = now - OLDER_SECONDS - SAME_TIME_SECONDS
    chosen = [
        each
        for each in samples
        if each.outcome is Outcome.OK and each.ended_at >= since
    ]
    logs = fit.log_ratios(chosen, max_running)
    return tuple(
        (s.ended_at, log - offset) for s, log in zip(chosen, logs, strict=True)
    )


def speed_of(track: Track, sigma: float, now: float) -> SpeedResidual | None:
    """How fast an engine is by its requests; None if they are too few.

    ``sigma`` is the robust standard deviation of the fit.
    """
    chosen = [each for each in track if now - each[0] <= RECENT_SECONDS][:RECENT_MOST]
    is_recent = len(chosen) >= FEWEST
    if not is_recent:
        chosen = [each for each in track if now - each[0] <= OLDER_SECONDS][:OLDER_MOST]
    if len(chosen) < FEWEST:
        return None
    logs = [log for _, log in chosen]
    error = MEDIAN_ERROR * max(sigma, spread(logs)) / math.sqrt(len(logs))
    return SpeedResidual(median(logs), error, len(logs), is_recent, tuple(chosen))


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
    engine: str,
    speeds: Mapping[str, SpeedResidual],
    trusted: Collection[str],
    tracks: Mapping[str, Track] = NO_TRACKS,
) -> Comparison | None:
    """An engine whose speed is known against the other engines of its model.

    ``trusted`` are those that nobody suspects, ``tracks`` their requests. The last
    minutes are compared, or else what ended at the same time; None where nothing did.
    """
    own = speeds[engine]
    others = [name for name in trusted if name != engine]
    peers = [speeds[name] for name in others if name in speeds]
    peers = [peer for peer in peers if peer.is_recent]
    if not own.is_recent or not peers:
        same = _at_the_same_time(own, [tracks.get(name, ()) for name in others])
        if same or (others and not own.is_recent):
            return same
        return Comparison(own.residual, 0.0, own.error, 0)
    level = median(peer.residual for peer in peers)
    shared = median(peer.error for peer in peers) / math.sqrt(len(peers))
    error = math.hypot(own.error, MEDIAN_ERROR * shared)
    return Comparison(own.residual - level, level, error, len(peers))


def _at_the_same_time(
    own: SpeedResidual, tracks: Collection[Track]
) -> Comparison | None:
    """An engine's requests, each against what its peers answered around then."""
    pooled = [each for track in tracks for each in track]
    levels, excess, used = [], [], set()
    for at, log in own.points:
        near = [each for each in pooled if abs(each[0] - at) <= SAME_TIME_SECONDS]
        if len(near) >= FEWEST_OF_PEERS:
            levels.append(median(each for _, each in near))
            excess.append(log - levels[-1])
            used.update(near)
    if len(excess) < FEWEST:
        return None
    scatter = MEDIAN_ERROR * spread(excess) / math.sqrt(len(excess))
    shared = own.error * math.sqrt(own.requests / len(used))
    error = math.hypot(max(own.error, scatter), shared)
    peers = sum(bool(used.intersection(track)) for track in tracks)
    return Comparison(median(excess), median(levels), error, peers)


def find_slow(
    engine: EngineReport,
    speeds: Mapping[str, SpeedResidual],
    trusted: Collection[str],
    wander: float = 0.0,
    tracks: Mapping[str, Track] = NO_TRACKS,
) -> Slow | None:
    """The verdict that an engine is slow, against the other engines of its model.

    ``wander`` is how far engines of its type go up and down by themselves. Requests at
    one time share what their engine is up to then, so their scatter alone does not tell
    how sure the verdict is.
    """
    own = speeds.get(engine.id)
    if own is None:
        return None
    by = compare_with_peers(engine.id, speeds, trusted, tracks)
    if by is None:
        return None
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
