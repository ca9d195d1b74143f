"""How many requests an engine may have at once, by its own metrics. Pure.

Engines pull their work, so the limit is also their weight: no router is needed.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from modelserver.measured import Metrics
from modelserver.values import DEFAULT_RUNNING, EngineReport, ModelSpec

#: An engine has too much if the requests waiting inside it, those that it gave up for
#: want of cache included, exceed 0.1 of its limit.
WAITING = 0.1
#: Its tokens come too slowly if the time between them exceeds 1.1 times the model's
#: ``itl_seconds``.
ITL_HIGH = 1.1
#: An engine with no request waiting inside it gets a higher limit if its requests
#: reach 0.8 of the present one, ...
USED = 0.8
#: ... if its KV cache is used below this share, ...
KV_ROOM = 0.95
#: ... and if the time between tokens is below 0.95 times the one aimed at.
ITL_LOW = 0.95
#: The limit of an engine that has too much, or is too slow, is multiplied by this.
LESS = 0.9
#: Slow tokens alone never lower a limit below this share of the most that it may have:
#: fewer requests do not quicken a large model, nor one that reads long prompts.
SLOW_LEAST = 0.25
#: The limit of an engine that fails at more requests than its peers is multiplied by
#: this ...
AFTER_FAILURES = 0.7
#: ... down to this share of the most that it may have.
FAILING_LEAST = 0.25
#: Too much alone never lowers a limit below this.
LEAST = 2.0


def with_capacities(
    specs: Iterable[ModelSpec], reports: Iterable[EngineReport]
) -> tuple[ModelSpec, ...]:
    """The models, where they leave it to their engines with what these take at once."""
    most: dict[str, int] = {}
    for report in reports:
        most[report.model] = max(most.get(report.model, 0), report.capacity)
    return tuple(
        spec
        if spec.max_running
        else replace(spec, max_running=most.get(spec.name) or DEFAULT_RUNNING)
        for spec in specs
    )


@dataclass(frozen=True, slots=True)
class Flow:
    """What an engine did since its limit was last moved."""

    metrics: Metrics
    #: The requests that it has now.
    inflight: int
    #: Whether it fails at more requests than chance and its peers explain.
    fails: bool = False


def next_limit(
    limit: float, flow: Flow, max_running: int, target_seconds: float = 0.0
) -> float:
    """The limit for the next five seconds; fractions are kept, so that it can grow.

    ``target_seconds`` are those between two tokens to aim at, 0 for any.

    >>> busy = Flow(Metrics(itl_seconds=0.02), inflight=16)
    >>> next_limit(16.0, busy, max_running=64)
    18.0
    """
    if flow.fails:
        least = max(1.0, FAILING_LEAST * max_running)
        limit = min(limit, max(least, AFTER_FAILURES * limit))
    seen = flow.metrics
    itl = seen.itl_seconds / target_seconds if target_seconds else 0.0
    if seen.waiting > max(1.0, WAITING * limit):
        return min(float(max_running), max(LEAST, LESS * limit))
    if itl > ITL_HIGH:
        return min(limit, max(LEAST, SLOW_LEAST * max_running, LESS * limit))
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
