"""From counters to rates: how fast requests come, and how fast an engine can answer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from modelserver.policy.rebalance.ledger import Interval, entered
from modelserver.policy.rebalance.state import (
    EngineView,
    Meter,
    ModelView,
    RebalanceRules,
)

#: Engines count as saturated if this share of their limit is in flight.
SATURATED = 0.8


@dataclass(frozen=True, slots=True)
class Tick:
    """What one tick saw of one model."""

    model: ModelView
    #: Its engines that serve.
    serving: tuple[EngineView, ...]
    #: Requests in flight on all its engines.
    inflight: int
    #: Requests that were finished since the tick before.
    finished: float
    #: The seconds since the tick before, 0 at the first.
    seconds: float


def finished_since(
    engines: Sequence[EngineView], before: Mapping[str, float]
) -> dict[str, float]:
    """What each engine finished since ``before``; new ones from nothing."""
    gains = {}
    for engine in engines:
        start = before.get(engine.id, engine.finished)
        # A counter that went back was begun anew.
        gain = engine.finished - start if engine.finished >= start else engine.finished
        gains[engine.id] = gain
    return gains


def measure(meter: Meter, tick: Tick, rules: RebalanceRules) -> Meter:
    """The meter after a tick.

    λ is an exponentially weighted mean over 300 s of what arrived: what was finished,
    and what waits or is in flight more than before. μ is the mean of what an engine
    finished in ticks at both ends of which the same engines were full and work waited.
    Both count requests and multiply with what a request is at that time, so that μ
    stays what it is when requests become longer.
    """
    meter = _weighed(meter, tick, rules)
    work = meter.request_work or 1.0
    held = float(tick.model.waiting + tick.inflight)
    saturated = _full(tick)
    after = replace(meter, held=held, full=saturated)
    if tick.seconds <= 0:
        return after
    arrived = work * max(0.0, tick.finished + held - meter.held) / tick.seconds
    after = replace(
        after,
        arrivals=_mean(meter.arrivals, arrived, tick.seconds, rules.average_seconds),
        recent=_mean(meter.recent, arrived, tick.seconds, rules.recent_seconds),
        observed=min(meter.observed + tick.seconds, 10 * rules.average_seconds),
    )
    if not tick.serving:
        return after
    each = work * tick.finished / tick.seconds / len(tick.serving)
    if saturated and saturated == meter.full and each > 0:
        mean = each if meter.capacity is None else meter.capacity
        mean = _mean(mean, each, tick.seconds, rules.average_seconds)
        return replace(after, capacity=mean)
    guess = _find_guess(each, tick)
    if guess is None:
        return after
    old = guess if meter.guess is None else meter.guess
    mean = _mean(old, guess, tick.seconds, rules.average_seconds)
    return replace(after, guess=mean)


def enter(meter: Meter, before: Meter, tick: Tick, unmoved: int, now: float) -> Meter:
    """The meter after a tick with its ledger, which is of requests, not of work."""
    mu = capacity(meter, tick.model)
    speed = None if mu is None else mu / (meter.request_work or 1.0)
    if tick.seconds > 0 and tick.finished and meter.full and meter.full == before.full:
        speed = tick.finished / tick.seconds / len(tick.serving)
    waiting = float(tick.model.waiting)
    passed = Interval(now, tick.seconds, tick.finished, waiting, speed, unmoved)
    return replace(meter, ledger=entered(meter.ledger, passed))


def _weighed(meter: Meter, tick: Tick, rules: RebalanceRules) -> Meter:
    """The meter with what a request is now, a mean over a minute."""
    now, old = tick.model.request_work, meter.request_work
    if now is None:
        return meter
    if old is not None:
        work = _mean(old, now, tick.seconds, rules.recent_seconds)
        return replace(meter, request_work=work)
    # Until now it counted requests.
    return replace(
        meter,
        request_work=now,
        arrivals=now * meter.arrivals,
        recent=now * meter.recent,
        capacity=None if meter.capacity is None else now * meter.capacity,
        guess=None if meter.guess is None else now * meter.guess,
    )


def _full(tick: Tick) -> tuple[str, ...]:
    limit = tick.model.spec.max_running * len(tick.serving)
    busy = tick.model.waiting > 0 and tick.inflight >= SATURATED * limit > 0
    return tuple(sorted(each.id for each in tick.serving)) if busy else ()


def _find_guess(each: float, tick: Tick) -> float | None:
    """What an engine could do at its limit, from what it does below; None if nothing.

    A batch of half the size takes more than half the time, so throughput grows slower
    than the number in flight; its square root is on the safe side for batches that
    cost a fixed time and a time for each request.
    """
    limit = tick.model.spec.max_running * len(tick.serving)
    if each <= 0 or not tick.inflight:
        return None
    return each / math.sqrt(min(1.0, tick.inflight / limit))


def _mean(old: float, new: float, seconds: float, window_seconds: float) -> float:
    weight = 1 - math.exp(-seconds / window_seconds)
    return old + weight * (new - old)


def rate(meter: Meter, rules: RebalanceRules) -> float:
    """λ, corrected for the time in which the mean was still filling up."""
    return _corrected(meter.arrivals, meter.observed, rules.average_seconds)


def peak_rate(meter: Meter, rules: RebalanceRules) -> float:
    """The greater of λ and the same over a minute, for those who are to give."""
    return max(rate(meter, rules), recent_rate(meter, rules))


def recent_rate(meter: Meter, rules: RebalanceRules) -> float:
    """λ over a minute, for those who give back what they were given."""
    return _corrected(meter.recent, meter.observed, rules.recent_seconds)


def _corrected(mean: float, observed: float, window_seconds: float) -> float:
    filled = 1 - math.exp(-observed / window_seconds)
    return mean / filled if filled > 0 else 0.0


def capacity(meter: Meter, model: ModelView) -> float | None:
    """μ as measured, else as told, else as guessed; None if nobody knows."""
    known = (meter.capacity, model.capacity, meter.guess)
    return next((each for each in known if each is not None), None)
