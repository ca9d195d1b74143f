"""Engines that are slow for a kind of request, and some that only get more of it."""

from collections.abc import Callable

from tests.scenarios.engine import Request
from tests.scenarios.fleet import Fleet
from tests.scenarios.slots import Slot, host, model
from tests.scenarios.staging import (
    HOUR,
    LOAD,
    MINUTE,
    Got,
    Scenario,
    conclude,
    first_drain,
    new_fleet,
    others_touched,
    reasons,
    warm,
)
from tests.scenarios.traffic import Lengths, Stream

#: Prompt tokens at which each takes twice as long to prefill as the first.
QUADRATIC = 8192.0
#: An engine whose prompts are too long for the fit may be drained and come back, in
#: hours; before kinds were known that were as many.
MOST_DRAINS = 5
#: How many times longer the prompts of one engine are.
LONGER = 10


def _slow_for(
    long: str, load: float = LOAD, seconds: float = 10 * MINUTE, **fault: float
) -> Callable[[int], Got]:
    """One is slow for a kind of request: found by it, named, nobody else touched."""

    def scenario(seed: int) -> Got:
        fleet = warm(seed, 8, load)
        began = fleet.now
        fleet.break_engine("m-3", sticky=True, **fault)
        fleet.run(20 * MINUTE)
        delay, why = first_drain(fleet, began, "m-3"), reasons(fleet, began, "m-3")
        relaunches = len(fleet.store.relaunches(began))
        others = others_touched(fleet, began, "m-3")
        text = f"{delay:.0f} s, {why[0] if why else 'never'}, {len(why)} drains, "
        text += f"{relaunches} relaunches, {others} others"
        named = bool(why) and why[0].startswith(f"slow for {long}")
        ok = delay <= seconds and named and len(why) <= 2 and not others
        return conclude(fleet, text, ok and not relaunches)

    return scenario


class _Skewed(Fleet):
    """All that one engine gets has long prompts."""

    def _begin(self, slot: Slot, request: Request) -> None:
        if slot.report.id == "m-0" and request.attempts == 0:
            request.prompt = min(30_000, LONGER * request.prompt)
        super()._begin(slot, request)


def _skewed(quadratic: float) -> Callable[[int], Got]:
    """One engine only gets long prompts: it is not slow for that."""

    def scenario(seed: int) -> Got:
        hosts = [host(f"h{place}", 2) for place in range(4)]
        stream = Stream("m", 8.0, wander=0.2)
        fleet = _Skewed(hosts, (model(),), [stream], seed, quadratic=quadratic)
        return _untouched(fleet, 0.0, 2 * HOUR)

    return scenario


def _from_some_time(seed: int) -> Got:
    """The same, after an hour with equal prompts."""
    fleet = new_fleet(seed, load=8.0, quadratic=QUADRATIC)
    fleet.run(HOUR)
    fleet.__class__ = _Skewed
    return _untouched(fleet, fleet.now, HOUR)


def _longer_everywhere(seed: int) -> Got:
    """All prompts become ten times as long, and long ones cost more each."""
    fleet = new_fleet(seed, load=6.0, quadratic=QUADRATIC)
    fleet.run(20 * MINUTE)
    began = fleet.now
    fleet.change(fleet.streams[0], prompt_times=10.0)
    return _untouched(fleet, began, HOUR)


def _heavy(seed: int) -> Got:
    """Long prompts and answers of all lengths, where long ones cost more each."""
    fleet = new_fleet(seed, load=4.0, wander=0.4, quadratic=QUADRATIC)
    fleet.streams[0].lengths = Lengths(800, 1.6, 300, 1.3, completion_most=16_000)
    return _untouched(fleet, 0.0, 3 * HOUR)


def _untouched(fleet: Fleet, began: float, seconds: float) -> Got:
    """Nobody is relaunched, nor said to stutter, which no canary could disprove."""
    fleet.run(seconds)
    drains, relaunches = fleet.store.drains(began), fleet.store.relaunches(began)
    kinds = {type(each).__name__ for at, each in fleet.store.verdicts if at >= began}
    text = f"{len(drains)} drains, {len(relaunches)} relaunches {' '.join(kinds)}"
    ok = "Stutter" not in kinds and not relaunches and len(drains) <= MOST_DRAINS
    return conclude(fleet, text, ok)


BANDS = (
    Scenario(
        "3x slow for prompts >= 2048",
        "<= 300 s, named, 0 relaunches",
        _slow_for("prompts", seconds=300.0, factor=3.0, from_prompt=2048),
    ),
    Scenario(
        "3x slow for prompts >= 2048, 4/s",
        "<= 900 s, named, 0 relaunches",
        _slow_for("prompts", 4.0, seconds=900.0, factor=3.0, from_prompt=2048),
    ),
    Scenario(
        "2x slow for answers >= 1024",
        "<= 1200 s, named, 0 relaunches",
        _slow_for("answers", seconds=1200.0, factor=2.0, from_completion=1024),
    ),
    Scenario(
        "2x slow for answers >= 512",
        "<= 600 s, named, 0 relaunches",
        _slow_for("answers", factor=2.0, from_completion=512),
    ),
    Scenario(
        "3x slow for answers >= 512, 4/s",
        "<= 600 s, named, 0 relaunches",
        _slow_for("answers", 4.0, factor=3.0, from_completion=512),
    ),
    Scenario("prompts x 10 to one", "<= 5 drains, 0 relaunches", _skewed(0.0)),
    Scenario("the same, quadratic", "<= 5 drains, 0 relaunches", _skewed(QUADRATIC)),
    Scenario("the same, after 1 h", "<= 5 drains, 0 relaunches", _from_some_time),
    Scenario("prompts x 10 on all", "<= 5 drains, 0 relaunches", _longer_everywhere),
    Scenario("heavy tails, quadratic", "<= 5 drains, 0 relaunches", _heavy),
)
