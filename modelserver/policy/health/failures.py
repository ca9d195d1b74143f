"""Whether an engine fails at more requests than chance and its peers explain. Pure."""

import math
from collections.abc import Iterable

from modelserver.policy.health.speed import RECENT_SECONDS
from modelserver.policy.health.verdicts import Errors
from modelserver.values import Outcome, Sample

#: The normal quantile of Wilson's bound: 99.5 % sure.
ERROR_Z = 2.58
#: The share of requests at which any engine may fail.
ERROR_SHARE = 0.05
#: It may also fail at 3 times the share of its peers, if that is more.
ERROR_PEERS = 3.0
#: Fewer than 10 requests say nothing about errors.
ERROR_FEWEST = 10


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
