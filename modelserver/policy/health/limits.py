"""How many requests an engine may have at once, from its own account. Pure.

Engines pull their work, so the limit is also their weight: no router is needed.
"""

import math
from dataclasses import dataclass

from modelserver.values import Metrics

#: The median time between two tokens that is aimed at, in seconds: for throughput, and
#: where people wait for each token.
THROUGHPUT_SECONDS, LATENCY_SECONDS = 0.080, 0.030
#: No less is aimed at than so many times what an empty engine takes: where that is
#: long already, as on a CPU, a smaller batch only costs throughput.
TIMES_ALONE = 3.0
#: Tokens that a canary generates.
CANARY_TOKENS = 32
#: Too much: waiting over limit, use of the KV cache, time between tokens over target.
WAITING, KV_FULL, ITL_HIGH = 0.1, 0.95, 1.1
#: Room: in-flight over limit, use of the KV cache, time between tokens over target.
USED, KV_ROOM, ITL_LOW = 0.8, 0.85, 0.95
#: What a limit is multiplied with where there is too much, and after failures.
LESS, AFTER_FAILURES = 0.9, 0.7
#: The load alone lowers no limit further than this.
LEAST = 2.0


@dataclass(frozen=True, slots=True)
class Flow:
    """What an engine did since the last look. ``failures``: by its fault, time-outs."""

    metrics: Metrics
    inflight: int
    failures: int = 0


def target_seconds(canary_seconds: float) -> float:
    """The time between tokens to aim at, by what an idle canary takes; 0: unknown.

    >>> target_seconds(0.64), target_seconds(8.0), target_seconds(0.0)
    (0.08, 0.75, inf)
    """
    if not canary_seconds:
        return math.inf
    return max(THROUGHPUT_SECONDS, TIMES_ALONE * canary_seconds / CANARY_TOKENS)


def next_limit(
    limit: float, flow: Flow, max_running: int, target_seconds: float
) -> float:
    """The limit for the next five seconds; keeps fractions, so that it can creep.

    >>> busy = Flow(Metrics(itl_seconds=0.02), inflight=16)
    >>> next_limit(16.0, busy, max_running=64, target_seconds=0.08)
    18.0
    """
    if flow.failures:
        return max(1.0, AFTER_FAILURES * limit)
    seen, itl = flow.metrics, flow.metrics.itl_seconds / target_seconds
    too_much = (
        seen.waiting > max(1.0, WAITING * limit)
        or seen.kv_use > KV_FULL
        or itl > ITL_HIGH
    )
    if too_much:
        return min(float(max_running), max(LEAST, LESS * limit))
    has_room = (
        flow.inflight >= USED * limit
        and not seen.waiting
        and seen.kv_use < KV_ROOM
        and itl < ITL_LOW
    )
    if has_room:
        limit += max(1.0, math.sqrt(limit) / 2)
    return min(limit, float(max_running))
