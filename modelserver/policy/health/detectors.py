"""Find what is wrong with an engine, by samples, metrics and canaries. Pure.

Each ``find_...`` returns a verdict, or None. Speed: the median of how much longer
requests took than a fitted model expects, compared with the engine's peers. Errors:
Wilson's bound. Silence: suspicion by accrual.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, median_low

from modelserver.policy.health.cost_model import Fit, row, spread
from modelserver.policy.health.verdicts import (
    Errors,
    Hang,
    Slow,
    SlowCanary,
    SlowTogether,
    SpeedResidual,
)
from modelserver.values import (
    Canary,
    EngineLoad,
    EngineReport,
    Metrics,
    Outcome,
    Sample,
)

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
#: The normal quantile of Wilson's bound: 99.5 % sure.
ERROR_Z = 2.58
#: The share of requests at which any engine may fail.
ERROR_SHARE = 0.05
#: It may also fail at 3 times the share of its peers, if that is more.
ERROR_PEERS = 3.0
#: Fewer than 10 requests say nothing about errors.
ERROR_FEWEST = 10
#: With a token counter: an engine hangs after 30 seconds without a token ...
STALL_SECONDS = 30.0
#: ... and after 3 times the seconds of its longest prefill, as the fit predicts it.
STALL_PREFILLS = 3.0
#: Without one: it hangs when a silence has a chance of less than 10 to the minus 8, ...
HANG_PHI = 8.0
#: ... after 60 seconds without an answer ...
HANG_SECONDS = 60.0
#: ... and after 2 times the seconds of its longest request of late.
LONGEST = 2.0
#: A canary is slow from 1.5 times its baseline.
CANARY_SLOW = 1.5
#: Canaries are a verdict when 2 of the last 3 were slow.
CANARY_MOST = 2
CANARY_LAST = 3
#: Canaries older than 600 seconds do not count.
CANARY_SECONDS = 600.0


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


def count_failures(samples: Iterable[Sample], now: float) -> tuple[int, int]:
    """Requests of the last minute: those that failed by the engine's fault, and all.

    A request that was refused for its own fault shows an engine that works. One that
    was cancelled shows nothing and is not counted.
    """
    recent = [
        sample.outcome
        for sample in samples
        if now - sample.ended_at <= RECENT_SECONDS and sample.outcome.says_something
    ]
    return sum(each is Outcome.ENGINE_FAULT for each in recent), len(recent)


def find_errors(
    engine: str, incarnation: int, own: tuple[int, int], peers: tuple[int, int]
) -> Errors | None:
    """The verdict that an engine fails too often; counts are (failed, requests)."""
    failed, requests = own
    if requests < ERROR_FEWEST:
        return None
    allowed = max(ERROR_SHARE, ERROR_PEERS * peers[0] / max(1, peers[1]))
    least = wilson_bound(failed, requests)
    if least <= allowed:
        return None
    return Errors(engine, incarnation, failed, requests, least, allowed)


def wilson_bound(hits: int, trials: int, z: float = ERROR_Z) -> float:
    """The lower end of Wilson's score interval for a share.

    >>> round(wilson_bound(10, 50), 3)
    0.094
    """
    share, square = hits / trials, z * z / trials
    centre = share + square / 2
    half = z * math.sqrt(share * (1 - share) / trials + square / (4 * trials))
    return (centre - half) / (1 + square)


def find_hang(
    engine: EngineReport,
    load: EngineLoad | None,
    metrics: Metrics | None,
    samples: Sequence[Sample],
    fit: Fit | None,
    now: float,
) -> Hang | None:
    """The verdict that an engine is silent for longer than its requests explain."""
    if load is None or not load.inflight:
        return None
    own = [each for each in samples if each.incarnation == engine.incarnation]
    if metrics is not None and metrics.tokens_at:
        silent, sign = now - metrics.tokens_at, "token"
        allowed = max(STALL_SECONDS, STALL_PREFILLS * _prefill_seconds(own, fit))
    else:
        silent, sign = load.idle_seconds, "answer"
        allowed = _longest_gap(own, load.inflight)
    # Silence from before its oldest request is that of an empty engine.
    silent = min(silent, load.oldest_seconds)
    if silent <= allowed:
        return None
    return Hang(engine.id, engine.incarnation, silent, allowed, load.inflight, sign)


def _prefill_seconds(samples: Sequence[Sample], fit: Fit | None) -> float:
    if fit is None or not samples:
        return 0.0
    _, prompt, _, _, admitted = fit.shares
    return (prompt + admitted) * max(sample.prompt_tokens for sample in samples)


def _longest_gap(samples: Sequence[Sample], inflight: int) -> float:
    """Seconds without an answer after which an engine surely hangs.

    Gaps between answers are taken to be exponential. Their mean is the greater of the
    mean gap of late and a request's mean seconds over the requests in flight.
    """
    answered = [each for each in samples if each.outcome is Outcome.OK]
    if len(answered) < 2:
        return HANG_SECONDS
    seconds = [each.seconds for each in answered]
    times = [each.ended_at for each in answered]
    mean = max(
        (max(times) - min(times)) / (len(times) - 1),
        sum(seconds) / len(seconds) / inflight,
    )
    accrued = HANG_PHI * math.log(10) * mean
    # An engine that was empty in between had long gaps which say nothing.
    accrued = min(accrued, HANG_PHI * math.log(10) * sum(seconds) / len(seconds))
    return max(HANG_SECONDS, accrued, LONGEST * max(seconds))


def find_slow_canary(
    engine: EngineReport,
    canaries: Iterable[Canary],
    baseline: float,
    now: float,
    wander: float = 0.0,
) -> SlowCanary | None:
    """The verdict that an engine's last idle canaries, newest first, are mostly slow.

    ``wander`` is how far engines of its type go up and down by themselves.
    """
    times = max(CANARY_SLOW, beyond_wander(wander))
    last = [
        each.seconds
        for each in canaries
        if each.incarnation == engine.incarnation
        and not each.loaded
        and now - each.at <= CANARY_SECONDS
    ][:CANARY_LAST]
    slow_ones = [each for each in last if each >= times * baseline]
    if not baseline or len(slow_ones) < CANARY_MOST:
        return None
    return SlowCanary(engine.id, engine.incarnation, tuple(last), baseline)
