"""What all engines have in common, or half of them: nobody is blamed for that."""

from collections.abc import Callable

from modelserver.policy.health.memory import Health
from tests.scenarios.engine import Fault
from tests.scenarios.fleet import Fleet
from tests.scenarios.levels import Watched
from tests.scenarios.staging import (
    HOUR,
    LOAD,
    MINUTE,
    Got,
    Scenario,
    first_drain,
    new_fleet,
    warm,
)
from tests.scenarios.traffic import Lengths

#: Prompts of which most is cached where there is a cache.
CACHEABLE = Lengths(prompt_median=4000, prompt_sigma=0.6)


def all_slow(load: float, before: float = 20 * MINUTE) -> Callable[[int], Got]:
    """All engines become three times slower: an alert, and nothing else."""

    def scenario(seed: int) -> Got:
        fleet = new_fleet(seed, load=load)
        fleet.run(before)
        return _end_common(fleet, list(fleet.slots))

    return scenario


def _end_common(fleet: Fleet, names: list[str], gap: float = 0.0, most: int = 0) -> Got:
    watched = Watched(fleet)
    for name in names:
        fleet.break_engine(name, factor=3.0, sticky=True)
        watched.run(gap)
    began = fleet.now
    watched.run(20 * MINUTE)
    drains, relaunches, _ = watched.count()
    told = [at - watched.began for at, who, _ in fleet.store.alerts() if who == "m"]
    delay = min((each for each in told if each >= 0), default=float("inf"))
    for name in names:
        fleet.slots[name].sim.fault = Fault()
    watched.run(20 * MINUTE)
    over = not fleet.store.memory.models["m"].common
    text = f"told after {delay:.0f} s, {drains} drains, {relaunches} relaunches"
    text += "" if over else ", never over"
    in_time = delay <= began - watched.began + 2 * MINUTE
    return watched.got(text, in_time and drains <= most and relaunches <= most and over)


def _nobody_asks(seed: int) -> Got:
    """All become slow while there are no requests: canaries tell."""
    fleet = warm(seed)
    fleet.change(fleet.streams[0], per_second=0.0)
    fleet.run(20 * MINUTE)
    return _end_common(fleet, list(fleet.slots))


def _one_after_another(load: float) -> Callable[[int], Got]:
    """All become slow within three minutes: the first ones cannot be told apart."""

    def scenario(seed: int) -> Got:
        fleet = new_fleet(seed, load=load)
        fleet.run(20 * MINUTE)
        return _end_common(fleet, list(fleet.slots), 3 * MINUTE / 8, most=2)

    return scenario


def _all_but_one(seed: int) -> Got:
    """Seven of eight become slow."""
    fleet = warm(seed)
    return _end_common(fleet, [name for name in fleet.slots if name != "m-3"])


def _one_slower_still(load: float) -> Callable[[int], Got]:
    """All are slow, and one is three times slower than the others: found."""

    def scenario(seed: int) -> Got:
        fleet = new_fleet(seed, load=load)
        fleet.run(20 * MINUTE)
        watched = Watched(fleet)
        for name in fleet.slots:
            fleet.break_engine(name, factor=2.0, sticky=True)
        watched.run(5 * MINUTE)
        began = fleet.now
        fleet.slots["m-3"].sim.advance(fleet.now)
        fleet.slots["m-3"].sim.fault = Fault(factor=6.0)
        watched.run(20 * MINUTE)
        delay = first_drain(fleet, began, "m-3")
        relaunched = [name for _, name in fleet.store.relaunches(watched.began)]
        drained = {name for _, name in fleet.store.drains(watched.began)} - {"m-3"}
        own = fleet.store.memory.engines["m-3"].health
        text = f"{delay:.0f} s, relaunched: {' '.join(relaunched)}, then {own}"
        text += f", {len(drained)} others" if drained else ""
        ok = delay <= 180 and relaunched == ["m-3"] and not drained
        return watched.got(text, ok and own is Health.HEALTHY)

    return scenario


def _while_one_drains(seed: int) -> Got:
    """One is slow, and while it drains all become slow: it alone is relaunched."""
    fleet = warm(seed)
    watched = Watched(fleet)
    fleet.break_engine("m-3", factor=3.0)
    while not fleet.store.drains(watched.began) and fleet.now < watched.began + 600:
        watched.run(5.0)
    began = fleet.now
    for factor in (3.0, 1 / 3.0):
        for slot in fleet.slots.values():
            slot.sim.advance(fleet.now)
            slot.sim.speed *= factor
        watched.run(20 * MINUTE)
    told = [at - began for at, who, _ in fleet.store.alerts(began) if who == "m"]
    drained = [name for _, name in fleet.store.drains(watched.began)]
    relaunched = [name for _, name in fleet.store.relaunches(watched.began)]
    text = f"told after {told}, relaunched: {' '.join(relaunched)}"
    ok = len(told) == 1 and told[0] <= 2 * MINUTE and drained == relaunched == ["m-3"]
    return watched.got(text, ok)


def _half_cached(early: bool, share: float = 0.9) -> Callable[[int], Got]:
    """Half the fleet has no prefix cache, from the first minute or from now on."""

    def scenario(seed: int) -> Got:
        fleet = new_fleet(seed, load=6.0)
        fleet.streams[0].lengths = CACHEABLE
        fleet.run(10.0)
        for number, slot in enumerate(fleet.slots.values()):
            slot.sim.cached_share = 0.0 if early and number % 2 else share
        if not early:
            fleet.run(30 * MINUTE)
        watched = Watched(fleet)
        for number, slot in enumerate(fleet.slots.values()):
            slot.sim.cached_share = 0.0 if number % 2 else share
        watched.run(HOUR)
        drains, relaunches, alerts = watched.count()
        text = f"{drains} drains, {relaunches} relaunches, {alerts} alerts"
        most = 3 if early else 2
        return watched.got(text, drains <= most and not relaunches and alerts <= 2)

    return scenario


def _lone(known: bool) -> Callable[[int], Got]:
    """A lone engine is slow from its first second; others were there before, or not."""

    def scenario(seed: int) -> Got:
        fleet = new_fleet(seed, 1, LOAD / 16)
        if known:
            fleet.run(20 * MINUTE)
            spec = fleet.models[0]
            fleet.change(fleet.streams[0], per_second=0.0)
            fleet.run(3 * MINUTE)
            # Scaled to zero, control restarts, and an engine starts elsewhere.
            fleet.store.wishes.clear()
            fleet.slots.clear()
            fleet.models = ()
            fleet.run(5 * MINUTE)
            fleet.restart_control(after=10.0)
            fleet.models = (spec,)
            fleet.run(30.0)
            fleet.change(fleet.streams[0], per_second=LOAD / 16)
        else:
            fleet.run(10.0)
        watched = Watched(fleet)
        fleet.break_engine("m-0", factor=2.5)
        watched.run(20 * MINUTE)
        delay = first_drain(fleet, watched.began, "m-0")
        _, relaunches, _ = watched.count()
        text = f"{delay:.0f} s, {relaunches} relaunch"
        if known:
            return watched.got(text, delay <= 3 * MINUTE and relaunches == 1)
        return watched.got(text, not relaunches)

    return scenario


COMMON = (
    Scenario("all 3x slow at 0.05/s", "told, 0 drains", all_slow(0.05)),
    Scenario("all 3x slow at 0.4/s", "told, 0 drains", all_slow(0.4)),
    Scenario("all 3x slow at 3/s", "told, 0 drains", all_slow(3.0)),
    Scenario("all 3x slow at 18/s", "told, 0 drains", all_slow(18.0)),
    Scenario("all 3x after 3 min, 18/s", "told, 0 drains", all_slow(18.0, 3 * MINUTE)),
    Scenario("all 3x after 3 min, 3/s", "told, 0 drains", all_slow(3.0, 3 * MINUTE)),
    Scenario("all 3x after 3 min, 0.4/s", "told, 0 drains", all_slow(0.4, 3 * MINUTE)),
    Scenario("all 3x while nobody asks", "told, 0 drains", _nobody_asks),
    Scenario("all 3x within 3 min, 18/s", "<= 2 drains", _one_after_another(18.0)),
    Scenario("all 3x within 3 min, 0.4/s", "<= 2 drains", _one_after_another(0.4)),
    Scenario("seven of eight 3x slow", "told, 0 drains", _all_but_one),
    Scenario("all 3x while one drains", "only that one", _while_one_drains),
    Scenario("all 2x, one 6x, 12/s", "only that one", _one_slower_still(12.0)),
    Scenario("all 2x, one 6x, 0.4/s", "only that one", _one_slower_still(0.4)),
    Scenario("half lose their cache", "<= 2 drains, 0 relaunches", _half_cached(False)),
    Scenario(
        "half cached from the start", "<= 3 drains, 0 relaunches", _half_cached(True)
    ),
    Scenario("lone, slow from the start", "0 relaunches", _lone(False)),
    Scenario("lone, slow, type known", "<= 180 s, 1 relaunch", _lone(True)),
)
