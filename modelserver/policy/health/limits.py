"""How many requests an engine may have at once, by its own metrics. Pure.

Engines pull their work, so the limit is also their weight: no router is needed.
"""

import math
from dataclasses import dataclass

from modelserver.values import Metrics

#: The median seconds between two tokens that are aimed at, for throughput.
THROUGHPUT_SECONDS = 0.080
#: No less is aimed at than 3 times what an empty engine takes: where that is long
#: already, as on a CPU, a smaller batch only costs throughput.
TIMES_ALONE = 3.0
#: Tokens that a canary generates.
CANARY_TOKENS = 32
#: An engine has too much if the requests waiting inside it exceed 0.1 of its limit, ...
WAITING = 0.1
#: ... if its KV cache is used beyond this share, ...
KV_FULL = 0.95
#: ... or if the time between tokens exceeds 1.1 times the one aimed at.
ITL_HIGH = 1.1
#: An engine with no request waiting inside it gets a higher limit if its requests
#: reach 0.8 of the present one, ...
USED = 0.8
#: ... if its KV cache is used below this share, ...
KV_ROOM = 0.85
#: ... and if the time between tokens is below 0.95 times the one aimed at.
ITL_LOW = 0.95
#: The limit of an engine that has too much is multiplied by this.
LESS = 0.9
#: The limit of an engine that fails at more requests than its peers is multiplied by
#: this ...
AFTER_FAILURES = 0.7
#: ... down to this share of the most that it may have.
FAILING_LEAST = 0.25
#: Too much alone never lowers a limit below this.
LEAST = 2.0


@dataclass(frozen=True, slots=True)
class Flow:
    """What an engine did since its limit was last moved."""

    metrics: Metrics
    #: The requests that it has now.
    inflight: int
    #: Whether it fails at more requests than chance and its peers explain.
    fails: bool = False


def target_seconds(canary_seconds: float) -> float:
    """The seconds between tokens to aim at, by those of an idle canary (0: unknown).

    >>> target_seconds(0.64), target_seconds(8.0), target_seconds(0.0)
    (0.08, 0.75, inf)
    """
    if not canary_seconds:
        return math.inf
    return max(THROUGHPUT_SECONDS, TIMES_ALONE * canary_seconds / CANARY_TOKENS)


def next_limit(
    limit: float, flow: Flow, max_running: int, target_seconds: float
) -> float:
    """The limit for the next five seconds; fractions are kept, so that it can grow.

    >>> busy = Flow(Metrics(itl_seconds=0.02), inflight=16)
    >>> next_limit(16.0, busy, max_running=64, target_seconds=0.08)
    18.0
    """
    if flow.fails:
        least = max(1.0, FAILING_LEAST * max_running)
        limit = min(limit, max(least, AFTER_FAILURES * limit))
    seen, itl = flow.metrics, flow.metrics.itl_seconds / target_seconds
    too_much = (
        seen.waiting > max(1.0, WAITING * limit)
        or seen.kv_use > KV_FULL
        or itl > ITL_HIGH
    )
    if too_much:
        return min(float(max_running), max(LEAST, LESS * limit))
    has_room = (
        not flow.fails
        and flow.inflight >= USED * limit
        and not seen.waiting
        and seen.kv_use < KV_ROOM
        and itl < ITL_LOW
    )
    if has_room:
        limit += max(1.0, math.sqrt(limit) / 2)
    return min(limit, float(max_running))
