"""Engines that are slow for some requests only, and then for all: no fault is learned.

Each looks at good answers and relaunches, and at the levels that control has learned.
"""

import math
from collections.abc import Callable

from modelserver.policy.health.canaries import PASSES
from modelserver.policy.health.memory import Health
from tests.scenarios.engine import Fault, Request
from tests.scenarios.fleet import Fleet
from tests.scenarios.slots import host, model
from tests.scenarios.staging import (
    HOUR,
    MINUTE,
    Got,
    Scenario,
    conclude,
    first_drain,
    others_touched,
    warm,
)
from tests.scenarios.traffic import Stream

#: An engine that takes three times as long while it has a prompt of 2048 tokens.
LONG_ONLY: dict[str, float | int | bool] = {
    "factor": 3.0,
    "while_prompt": 2048,
    "sticky": True,
}
#: The share of what is sent that has to be answered meanwhile.
ANSWERED = 0.97


class Skewed(Fleet):
    """Long prompts go to one engine, where each takes longer than the last."""

    def _dispatch(self, request: Request, first: bool = False) -> None:
        home = self.slots.get("m-3")
        if request.prompt > 1000 and home and home.room > 0 and not first:
            self._begin(home, request)
        else:
            super()._dispatch(request, first)


class Watched:
    """A fleet's answers, drains and levels since a moment."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.began = fleet, fleet.now
        self.done, self.sent = fleet.counts["done"], fleet.counts["sent"]
        self.level = 0.0

    def run(self, seconds: float) -> None:
        """Let time pass; sees the highest level of any engine."""
        end = self.fleet.now + seconds
        while self.fleet.now < end:
            self.fleet.run(min(30.0, end - self.fleet.now))
            levels = [
                own.offset or 0.0 for own in self.fleet.store.memory.engines.values()
            ]
            self.level = max(self.level, *levels)

    @property
    def answered(self) -> float:
        """The share of the requests that came which were answered."""
        sent = self.fleet.counts["sent"] - self.sent
        done = self.fleet.counts["done"] - self.done
        return done / sent if sent else 1.0

    def count(self) -> tuple[int, int, int]:
        """Drains, relaunches and alerts."""
        store = self.fleet.store
        return (
            len(store.drains(self.began)),
            len(store.relaunches(self.began)),
            len(store.alerts(self.began)),
        )

    def got(self, text: str, ok: bool) -> Got:
        """With what every scenario here asks for: answers, and no level of a fault."""
        answered = self.answered
        text += f", {100 * answered:.0f} % answered"
        if self.level > math.log(PASSES) + 1e-6:
            text += f", a level of {math.exp(self.level):.1f}x"
            ok = False
        return conclude(self.fleet, text, ok and answered >= ANSWERED)


def _skewed(seed: int) -> Fleet:
    hosts = [host(f"h{place}", 2) for place in range(4)]
    fleet = Skewed(hosts, (model(),), [Stream("m", 8.0, wander=0.15)], seed)
    fleet.run(20 * MINUTE)
    return fleet


def _begin(seed: int, kind: str) -> tuple[Fleet, Watched]:
    """An engine's requests take longer than they should, its canaries do not."""
    if kind == "long":
        fleet = warm(seed)
        watched = Watched(fleet)
        fleet.break_engine("m-3", **LONG_ONLY)
    else:
        fleet = _skewed(seed)
        watched = Watched(fleet)
        fleet.slots["m-3"].sim.quadratic = 1000 / 1.5
    return fleet, watched


def first_only(kind: str) -> Callable[[int], Got]:
    """For an hour: degraded with one alert, never relaunched."""

    def scenario(seed: int) -> Got:
        fleet, watched = _begin(seed, kind)
        watched.run(HOUR)
        drains, relaunches, alerts = watched.count()
        own = fleet.store.memory.engines["m-3"].health
        text = f"{own}, {drains} drains, {relaunches} relaunches, {alerts} alerts"
        ok = own is Health.DEGRADED and not relaunches
        ok = ok and drains <= 6 and alerts == 1
        return watched.got(text, ok)

    return scenario


def then_all(
    kind: str, factor: float, seconds: float, instead: bool = False
) -> Callable[[int], Got]:
    """After two verifications it becomes slow in everything, too: found again.

    ``instead`` is whether that takes the place of the first fault, so that its requests
    take no longer than before.
    """

    def scenario(seed: int) -> Got:
        fleet, watched = _begin(seed, kind)
        watched.run(20 * MINUTE)
        began, sim = fleet.now, fleet.slots["m-3"].sim
        if instead:
            fleet.break_engine("m-3", factor=factor)
        else:
            sim.advance(fleet.now)
            sim.speed *= factor
        watched.run(seconds + 10 * MINUTE)
        relaunched = fleet.store.relaunches(began)
        delay = first_drain(fleet, began, "m-3")
        others = others_touched(fleet, watched.began, "m-3")
        text = f"{delay:.0f} s, {len(relaunched)} relaunch, {others} others"
        ok = delay <= seconds and len(relaunched) == 1 and not others
        return watched.got(text, ok)

    return scenario


def recovers(seed: int) -> Got:
    """What it was slow for ends: it is healthy again, without a relaunch."""
    fleet, watched = _begin(seed, "long")
    watched.run(30 * MINUTE)
    was = fleet.store.memory.engines["m-3"].health
    fleet.slots["m-3"].sim.fault = Fault()
    watched.run(30 * MINUTE)
    own = fleet.store.memory.engines["m-3"].health
    relaunches = len(fleet.store.relaunches(watched.began))
    ok = was is Health.DEGRADED and own is Health.HEALTHY and not relaunches
    return watched.got(f"{was}, then {own}, {relaunches} relaunches", ok)


def relaunched(seed: int) -> Got:
    """An operator relaunches it, which helps: nothing is left of what was accepted."""
    fleet, watched = _begin(seed, "long")
    watched.run(30 * MINUTE)
    fleet._start(fleet.slots["m-3"])
    fleet.slots["m-3"].sim.fault = Fault()
    watched.run(20 * MINUTE)
    own = fleet.store.memory.engines["m-3"]
    began = fleet.now
    fleet.break_engine("m-3", factor=2.0)
    watched.run(10 * MINUTE)
    delay = first_drain(fleet, began, "m-3")
    text = f"{own.health}, then {delay:.0f} s"
    return watched.got(text, own.health is Health.HEALTHY and delay <= 90)


def _then(kind: str, factor: float, seconds: float, instead: bool = False) -> Scenario:
    name = f"{kind}, {'now' if instead else 'then all'} {factor:g}x"
    run = then_all(kind, factor, seconds, instead)
    return Scenario(name, f"<= {seconds:g} s, 1 relaunch", run)


LEVELS = (
    Scenario("long prompts, 1 h", "degraded, 1 alert", first_only("long")),
    Scenario("skewed prompts, 1 h", "degraded, 1 alert", first_only("skew")),
    *(
        _then(kind, factor, seconds)
        for kind in ("long", "skew")
        for factor, seconds in ((3.0, 90), (2.0, 180))
    ),
    _then("long", 2.0, 900, instead=True),
    _then("long", 3.0, 900, instead=True),
    Scenario("long prompts, then well", "degraded, then healthy", recovers),
    Scenario("long prompts, relaunched", "healthy, <= 90 s", relaunched),
)
