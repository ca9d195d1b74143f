"""Control where nothing stays as it was: speeds, loads, mixes, and the fleet itself."""

import math
from collections.abc import Callable
from dataclasses import replace

from modelserver.policy.health.memory import Health
from tests.scenarios.engine import Fault, Request
from tests.scenarios.fleet import Fleet
from tests.scenarios.slots import Slot, host, model
from tests.scenarios.staging import (
    HOUR,
    MINUTE,
    Got,
    Scenario,
    conclude,
    new_fleet,
    others_touched,
    warm,
)
from tests.scenarios.traffic import Lengths, Stream
from tests.scenarios.variations import judge, untouched

#: Mixes of quite different shape, and a load that eight engines bear of each.
SHAPES = (
    (Lengths(), 12.0),
    (Lengths(100, 0.5, 800, 0.5), 5.0),
    (Lengths(4000, 0.5, 30, 0.5), 9.0),
    (Lengths(50, 0.3, 10, 0.3), 60.0),
    (Lengths(8000, 0.8, 400, 0.8), 1.5),
)
#: One token each: all that these requests need is their prompt read.
ONE_TOKEN = Lengths(300, 0.7, 1, 0.01, completion_most=1)
#: The standard deviation of the logarithm of how many steps a token takes by luck.
LUCK = 0.4


def _wavering(
    by: float, factor: float = 1.0, engines: int = 8, most: int = 0
) -> Callable[[int], Got]:
    """Engines whose speed goes up and down by itself; one becomes slow, or none."""

    def scenario(seed: int) -> Got:
        fleet = new_fleet(seed, engines, 1.5 * engines, wander=0.3)
        fleet.waver = by
        if factor > 1:
            fleet.run(20 * MINUTE)
            return judge(fleet, 180, {"factor": factor})
        fleet.run(2 * HOUR)
        drains = len(fleet.store.drains())
        return conclude(fleet, f"{drains} drains", drains <= most)

    return scenario


def _slower_by_and_by(engines: int, start: float) -> Callable[[int], Got]:
    """An engine becomes slower over four hours: found before it is 1.6x slow."""

    def scenario(seed: int) -> Got:
        fleet = new_fleet(seed, engines, 2.2 * engines)
        fleet.run(start)
        fault = {"factor": 2.0, "ramp_seconds": 4 * HOUR}
        return judge(fleet, 0.6 * 4 * HOUR, fault, run=3 * HOUR)

    return scenario


def _day(seed: int) -> Got:
    """The load rises and falls by ten times within hours, and rests for one."""
    fleet = new_fleet(seed, load=6.6, wander=0.2)
    for step in range(48):
        share = 0.55 + 0.45 * math.sin(step / 12 * math.pi)
        fleet.change(fleet.streams[0], per_second=12 * share)
        fleet.run(5 * MINUTE)
    fleet.change(fleet.streams[0], per_second=0.0)
    fleet.run(HOUR)
    fleet.change(fleet.streams[0], per_second=25.0)
    return untouched(fleet, 30 * MINUTE)


def _shapes(seed: int) -> Got:
    """The mix takes another shape every twenty minutes."""
    fleet = new_fleet(seed, wander=0.2)
    for number in (0, 1, 2, 3, 4, 0, 2, 1, 4, 3):
        fleet.streams[0].lengths, load = SHAPES[number]
        fleet.change(fleet.streams[0], per_second=load)
        fleet.run(20 * MINUTE)
    return untouched(fleet, MINUTE)


class _Homing(Fleet):
    """Long prompts go to one engine, as where it has their prefix."""

    def _dispatch(self, request: Request, first: bool = False) -> None:
        home = self.slots.get("m-0")
        if request.prompt > 1500 and home and home.room > 0 and not first:
            self._begin(home, request)
        else:
            super()._dispatch(request, first)


def _homing(factor: float) -> Callable[[int], Got]:
    def scenario(seed: int) -> Got:
        hosts = [host(f"h{place}", 2) for place in range(4)]
        fleet = _Homing(hosts, (model(),), [Stream("m", 10.0, wander=0.2)], seed)
        if factor == 1.0:
            return untouched(fleet, 2 * HOUR)
        fleet.run(40 * MINUTE)
        return judge(fleet, 120, {"factor": factor})

    return scenario


def _one_token(factor: float) -> Callable[[int], Got]:
    """Requests for one token each: nobody is blamed, or the slow one only."""

    def scenario(seed: int) -> Got:
        fleet = new_fleet(seed, load=80.0, wander=0.2)
        fleet.streams[0].lengths = ONE_TOKEN
        fleet.run(20 * MINUTE)
        if factor > 1.0:
            return judge(fleet, 120, {"factor": factor})
        alerts = len(fleet.store.alerts())
        got = untouched(fleet, 10 * MINUTE)
        return replace(
            got, text=f"{got.text}, {alerts} alerts", ok=got.ok and not alerts
        )

    return scenario


class _Lucky(Fleet):
    """How many tokens a step gives is a matter of luck, as with speculation."""

    def _begin(self, slot: Slot, request: Request) -> None:
        super()._begin(slot, request)
        request.times *= math.exp(self.random.gauss(0.0, LUCK))


def _lucky(engines: int, factor: float) -> Callable[[int], Got]:
    """Answers of the same length take quite different times: nobody is blamed."""

    def scenario(seed: int) -> Got:
        hosts = [host(f"h{place}", 2) for place in range((engines + 1) // 2)]
        stream = Stream("m", 1.5 * engines, wander=0.2)
        fleet = _Lucky(hosts, (model(engines=engines),), [stream], seed)
        if factor == 1.0:
            return untouched(fleet, 2 * HOUR)
        fleet.run(25 * MINUTE)
        return judge(fleet, 120, {"factor": factor})

    return scenario


def _and_alerts(got: Got, alerts: int) -> Got:
    text = f"{got.text}, {alerts} alerts"
    return replace(got, text=text, ok=got.ok and not alerts)


def _early_steps(seed: int) -> Got:
    """The load, and then the prompts, jump before anything is known for sure."""
    fleet = new_fleet(seed, load=3.0)
    fleet.run(90.0)
    fleet.change(fleet.streams[0], per_second=12.0)
    fleet.run(90.0)
    fleet.change(fleet.streams[0], prompt_times=10.0)
    alerts = len(fleet.store.alerts())
    return _and_alerts(untouched(fleet, 30 * MINUTE), alerts)


def _early(factor: float, seconds: float) -> Callable[[int], Got]:
    """An engine becomes slow a minute after the first ones have come up."""

    def scenario(seed: int) -> Got:
        fleet = new_fleet(seed)
        fleet.run(2 * MINUTE)
        return judge(fleet, seconds, {"factor": factor})

    return scenario


def _joins(factor: float) -> Callable[[int], Got]:
    """A ninth engine joins, which is well, or slow and stays so."""

    def scenario(seed: int) -> Got:
        fleet = new_fleet(seed)
        fleet.hosts.append(host("h9", 1))
        fleet.run(40 * MINUTE)
        began = fleet.now
        spec = replace(fleet.models[0], min_engines=9, max_engines=9)
        fleet.models = (spec,)
        fleet.run(10.0)
        if factor > 1:
            fleet.break_engine("m-8", factor=factor, sticky=True)
        fleet.run(30 * MINUTE)
        own = fleet.store.memory.engines["m-8"].health
        drains = len(fleet.store.drains(began))
        others = others_touched(fleet, began, "m-8")
        wanted = Health.DEGRADED if factor > 1 else Health.HEALTHY
        ok = own is wanted and not others and drains == (1 if factor > 1 else 0)
        return conclude(fleet, f"{own}, {drains} drains, {others} others", ok)

    return scenario


def _flaps(seed: int) -> Got:
    """Slow for one minute of three, for an hour: no loop of relaunches."""
    fleet = warm(seed)
    began = fleet.now
    for _ in range(20):
        fleet.break_engine("m-3", factor=2.5, sticky=True)
        fleet.run(MINUTE)
        fleet.slots["m-3"].sim.fault = Fault()
        fleet.run(2 * MINUTE)
    relaunches = len(fleet.store.relaunches(began))
    others = others_touched(fleet, began, "m-3")
    text = f"{relaunches} relaunches, {others} others"
    return conclude(fleet, text, relaunches <= 3 and not others)


WEATHER = (
    Scenario("wavering by 10 %, 2 h", "0 drains", _wavering(0.10)),
    Scenario("wavering by 15 %, 2 h", "<= 1 drain", _wavering(0.15, most=1)),
    Scenario("by 10 %, one 2x slow", "<= 180 s, 1 relaunch", _wavering(0.10, 2.0)),
    Scenario("by 15 %, one 3x slow", "<= 180 s, 1 relaunch", _wavering(0.15, 3.0)),
    Scenario("two by 10 %, one 3x", "<= 180 s, 1 relaunch", _wavering(0.10, 3.0, 2)),
    Scenario(
        "2x over 4 h", "before 1.6x, 1 relaunch", _slower_by_and_by(4, 20 * MINUTE)
    ),
    Scenario(
        "2x over 4 h, from the start", "before 1.6x", _slower_by_and_by(4, MINUTE)
    ),
    Scenario("2x over 4 h, of two", "before 1.6x", _slower_by_and_by(2, 20 * MINUTE)),
    Scenario("tides, and no load for 1 h", "0 drains", _day),
    Scenario("another mix every 20 min", "0 drains", _shapes),
    Scenario("long prompts to one", "0 drains", _homing(1.0)),
    Scenario("long prompts to a 2x slow one", "<= 120 s, 1 relaunch", _homing(2.0)),
    Scenario("one token each", "0 drains, 0 alerts", _one_token(1.0)),
    Scenario("one token each, one 2x slow", "<= 120 s, 1 relaunch", _one_token(2.0)),
    Scenario("tokens by luck, 2 h", "0 drains", _lucky(8, 1.0)),
    Scenario("tokens by luck, lone, 2 h", "0 drains", _lucky(1, 1.0)),
    Scenario("tokens by luck, one 2x slow", "<= 120 s, 1 relaunch", _lucky(8, 2.0)),
    Scenario("early steps of load", "0 drains, 0 alerts", _early_steps),
    Scenario("3x slow after 2 min", "<= 90 s, 1 relaunch", _early(3.0, 90)),
    Scenario("2x slow after 2 min", "<= 180 s, 1 relaunch", _early(2.0, 180)),
    Scenario("a ninth joins", "healthy", _joins(1.0)),
    Scenario("a ninth joins, 1.5x slow", "degraded", _joins(1.5)),
    Scenario("2.5x slow, off and on", "<= 3 relaunches", _flaps),
)
