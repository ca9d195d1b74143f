"""How verdicts on engines are made from samples, metrics and canaries. Pure.

Medians of residuals against a fitted model, compared with the engine's peers; Wilson's
bound for errors; suspicion by accrual for silence.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, median_low

from modelserver.policy.health.cost_model import Fit, row, spread
from modelserver.policy.health.verdicts import (
    Common,
    Errors,
    Hang,
    Slow,
    SlowCanary,
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

#: Requests of so many seconds count, at most so many; else older and fewer.
RECENT_SECONDS, RECENT_MOST = 60.0, 40
OLDER_SECONDS, OLDER_MOST = 600.0, 12
#: Fewer say nothing.
FEWEST = 8
#: A median scatters by so much more than a mean, of a normal distribution.
MEDIAN_ERROR = 1.2533
#: Slow: times what the fit expects, times the peers, standard errors beyond them.
SLOW, SLOWER_THAN_PEERS, CERTAIN = 1.25, 1.4, 4.0
#: Times beyond what engines wander by themselves; so much slower is slow in any fleet.
WANDER_CERTAIN, WANDER_MOST = 4.5, 2.2
#: Slow, where there is no peer to compare with.
SLOW_ALONE = 1.8
#: All engines of a model together: it is the load or the host.
SLOW_TOGETHER = 1.4
#: Errors: normal quantile of the bound, its least, times the peers', requests.
ERROR_Z, ERROR_SHARE, ERROR_PEERS, ERROR_FEWEST = 2.58, 0.05, 3.0, 10
#: Hang without a token counter: suspicion in powers of ten, and its least in seconds.
HANG_PHI, HANG_SECONDS = 8.0, 60.0
#: With a token counter: seconds, and times a predicted prefill.
STALL_SECONDS, STALL_PREFILLS = 30.0, 3.0
#: A silent engine may have its longest request of late so many times over.
LONGEST = 2.0
#: A canary is slow at so many times its baseline; so many of the last, within seconds.
CANARY_SLOW, CANARY_MOST, CANARY_LAST, CANARY_SECONDS = 1.5, 2, 3, 600.0


def standing(
    samples: Iterable[Sample], fit: Fit, offset: float, max_running: int, now: float
) -> SpeedResidual | None:
    """Where an engine stands by its answered requests, newest first; None: too few."""
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
    """An engine against its peers: how far beyond them it is, and how sure that is."""

    excess: float
    level: float
    error: float
    peers: int


def compared(
    engine: str, standings: Mapping[str, SpeedResidual], trusted: Collection[str]
) -> Comparison:
    """An engine that has a standing against the other engines of its model.

    ``trusted`` are those that nobody suspects.
    """
    own = standings[engine]
    peers = [
        standings[name] for name in trusted if name != engine and name in standings
    ]
    if not peers:
        return Comparison(own.residual, 0.0, own.error, 0)
    level = median(peer.residual for peer in peers)
    shared = median(peer.error for peer in peers) / math.sqrt(len(peers))
    error = math.hypot(own.error, MEDIAN_ERROR * shared)
    return Comparison(own.residual - level, level, error, len(peers))


def slow(
    engine: EngineReport,
    standings: Mapping[str, SpeedResidual],
    trusted: Collection[str],
    wander: float = 0.0,
) -> Slow | None:
    """Whether an engine is slow, against the other engines of its model.

    Requests that are close together share the mood of their engine, so their scatter
    alone does not tell how sure this is: ``wander`` is how far engines of its type go
    up and down by themselves.
    """
    own = standings.get(engine.id)
    if own is None:
        return None
    by = compared(engine.id, standings, trusted)
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


def common(
    model: str, standings: Collection[SpeedResidual], times: float = SLOW_TOGETHER
) -> Common | None:
    """Whether most engines of a model are slow together; one alone has no company.

    The lower median: of two engines both must be slow, of four three.
    """
    if len(standings) < 2:
        return None
    level = median_low(each.residual for each in standings)
    if level < math.log(times):
        return None
    return Common(model, level, len(standings))


def failures(samples: Iterable[Sample], now: float) -> tuple[int, int]:
    """Requests that failed by the engine's fault of late, and all that count.

    A request that was refused for its own fault shows an engine that works; one that
    was cancelled shows nothing.
    """
    recent = [
        sample.outcome
        for sample in samples
        if now - sample.ended_at <= RECENT_SECONDS
        and sample.outcome is not Outcome.CANCELLED
    ]
    return sum(each is Outcome.ENGINE_FAULT for each in recent), len(recent)


def errors(
    engine: str, incarnation: int, own: tuple[int, int], peers: tuple[int, int]
) -> Errors | None:
    """Whether an engine fails too often; both counts are (failed, requests)."""
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


def hang(
    engine: EngineReport,
    load: EngineLoad | None,
    metrics: Metrics | None,
    samples: Sequence[Sample],
    fit: Fit | None,
    now: float,
) -> Hang | None:
    """Whether an engine has requests and is silent beyond what they explain."""
    if load is None or not load.inflight:
        return None
    own = [each for each in samples if each.incarnation == engine.incarnation]
    if metrics is not None and metrics.tokens_at:
        silent, sign = now - metrics.tokens_at, "token"
        allowed = max(STALL_SECONDS, STALL_PREFILLS * _prefill_seconds(own, fit))
    else:
        silent, sign = load.idle_seconds, "answer"
        allowed = _longest_gap(own, load.inflight)
    # What came before its oldest request says nothing of an engine that was empty.
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
    """Seconds until the suspicion by accrual is beyond doubt.

    Gaps between answers are thought exponential, with the greater of their mean and of
    a request's mean seconds over the requests in flight; the longest request of late
    may come twice over.
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


def slow_canary(
    engine: EngineReport,
    canaries: Iterable[Canary],
    baseline: float,
    now: float,
    wander: float = 0.0,
) -> SlowCanary | None:
    """Whether an engine's last idle canaries, newest first, are mostly slow.

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
