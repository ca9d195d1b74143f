"""Engines that stand still again and again; and some that only seem to."""

from collections.abc import Callable

from modelserver.policy.health.memory import Health
from tests.scenarios.fleet import Fleet
from tests.scenarios.slots import host, model
from tests.scenarios.staging import (
    HOUR,
    LOAD,
    MINUTE,
    WARM_SECONDS,
    Got,
    Scenario,
    conclude,
    first_drain,
    new_fleet,
    others_touched,
    p95,
    reasons,
    warm,
)
from tests.scenarios.traffic import Lengths, Stream

#: Long prompts, long answers, and few of both that are usual.
HEAVY = Lengths(800, 1.6, 300, 1.3, prompt_most=30_000, completion_most=16_000)
#: Prompts that fill the KV cache before an engine has 32 of them.
FULL = Lengths(20_000, 0.4, 400, 0.5, prompt_most=30_000)
#: One that stands still for such a share of its time is slow as a whole, too.
SLOWER = 0.3
#: Seconds within which a stutter is found, and where few requests show it.
FOUND_SECONDS = 300.0
FOUND_LATE_SECONDS = 900.0


def _one(
    stutter: float, every: float, load: float = LOAD, engines: int = 8
) -> Callable[[int], Got]:
    """One engine stutters: found as that, relaunched once, and all is as before."""

    def scenario(seed: int) -> Got:
        if load >= LOAD / 8:
            fleet = warm(seed, engines, load)
        else:
            fleet = new_fleet(seed, engines, load)
            fleet.run(2 * HOUR)
        began, name = fleet.now, f"m-{engines // 3}"
        before = p95(fleet, began - 10 * MINUTE, began)
        fleet.break_engine(name, stutter=stutter, stutter_every=every)
        fleet.run(20 * MINUTE)
        delay, why = first_drain(fleet, began, name), reasons(fleet, began, name)
        relaunches = len(fleet.store.relaunches(began))
        others = others_touched(fleet, began, name)
        during = p95(fleet, began, began + min(delay, 20 * MINUTE))
        after = p95(fleet, fleet.now - 10 * MINUTE, fleet.now)
        text = f"{delay:.0f} s, {'+'.join(why)}, {relaunches} relaunch, "
        text += f"{others} others, p95 {before:.0f} {during:.0f} {after:.0f} s"
        within = FOUND_SECONDS if load > 1 else FOUND_LATE_SECONDS
        named = why == ["stutters"] or (stutter >= SLOWER * every and why == ["slow"])
        ok = delay <= within and named and relaunches == 1
        return conclude(fleet, text, ok and not others and after < 1.5 * before)

    return scenario


def _two_of_eight(seed: int) -> Got:
    """Two stutter, each at times of its own: both are relaunched, nobody else."""
    fleet = warm(seed)
    began = fleet.now
    fleet.break_engine("m-2", stutter=10.0)
    fleet.run(17.0)
    fleet.break_engine("m-5", stutter=10.0)
    fleet.run(30 * MINUTE)
    names = sorted(name for _, name in fleet.store.relaunches(began))
    last = max((first_drain(fleet, began, each) for each in names), default=0.0)
    text = f"{' '.join(names)} relaunched, drained by {last:.0f} s"
    ok = names == ["m-2", "m-5"] and not others_touched(fleet, began, *names)
    return conclude(fleet, text, ok and last <= 2 * FOUND_SECONDS)


def _all(
    stutter: float, every: float, step: float, but: int = 0
) -> Callable[[int], Got]:
    """All stutter, together or each at its time: an alert, nobody is taken away.

    ``but`` is how many of them are well.
    """

    def scenario(seed: int) -> Got:
        fleet = warm(seed)
        began = fleet.now
        for name in sorted(fleet.slots)[but:]:
            fleet.break_engine(name, stutter=stutter, stutter_every=every)
            fleet.run(step)
        fleet.run(30 * MINUTE)
        drains, alerts = len(fleet.store.drains(began)), fleet.store.alerts(began)
        told = [at - began for at, _, reason in alerts if "stutter" in reason]
        text = f"{drains} drains, {len(alerts)} alerts, of a stutter {told}"
        ok = not drains and len(told) == 1 and told[0] <= 2 * FOUND_SECONDS
        return conclude(fleet, text, ok)

    return scenario


def _incurable(seed: int) -> Got:
    """A relaunch does not cure it: one, then degraded, and people know."""
    fleet = warm(seed)
    began = fleet.now
    fleet.break_engine("m-3", stutter=10.0, sticky=True)
    fleet.run(90 * MINUTE)
    relaunches, own = len(fleet.store.relaunches(began)), _own(fleet, "m-3")
    alerts = [each for each in fleet.store.alerts(began) if each[1] == "m-3"]
    text = f"{relaunches} relaunch, {own.value}, {len(alerts)} alert"
    ok = relaunches == 1 and own is Health.DEGRADED and len(alerts) == 1
    return conclude(fleet, text, ok and not others_touched(fleet, began, "m-3"))


def _lone(seed: int) -> Got:
    """The only engine stutters: relaunched once, as a load of a minute pays."""
    fleet = warm(seed, 1, LOAD / 8)
    began = fleet.now
    fleet.break_engine("m-0", stutter=20.0)
    fleet.run(30 * MINUTE)
    delay = first_drain(fleet, began, "m-0")
    relaunches = len(fleet.store.relaunches(began))
    text = f"{delay:.0f} s, {relaunches} relaunch"
    return conclude(fleet, text, delay <= 2 * FOUND_SECONDS and relaunches == 1)


def _own(fleet: Fleet, name: str) -> Health:
    return fleet.store.memory.engines[name].health


def _quiet(fleet: Fleet, seconds: float) -> Got:
    """Nobody is relaunched, nor said to stutter at a single look."""
    fleet.run(seconds)
    drains, relaunches = len(fleet.store.drains()), len(fleet.store.relaunches())
    flags = sum("tutter" in type(each).__name__ for _, each in fleet.store.verdicts)
    text = f"{drains} drains, {relaunches} relaunches, {flags} stutter verdicts"
    return conclude(fleet, text, not relaunches and not flags)


def _once(seed: int) -> Got:
    """One engine stands still once, for 25 seconds."""
    fleet = warm(seed)
    fleet.break_engine("m-3", stutter=25.0, stutter_every=10_000.0)
    return _quiet(fleet, 20 * MINUTE)


def _heavy(engines: int, burst: int) -> Callable[[int], Got]:
    """Lengths with heavy tails, in bursts."""

    def scenario(seed: int) -> Got:
        fleet = new_fleet(seed, engines, 0.5 * engines, wander=0.4)
        fleet.streams[0].lengths, fleet.streams[0].burst = HEAVY, burst
        return _quiet(fleet, 3 * HOUR)

    return scenario


def _full(engines: int) -> Callable[[int], Got]:
    """Requests wait inside the engines for room in the KV cache."""

    def scenario(seed: int) -> Got:
        hosts = [host(f"h{place}", 2) for place in range((engines + 1) // 2)]
        stream = Stream("m", 0.2 * engines, FULL, wander=0.3)
        fleet = Fleet(hosts, (model(engines=engines),), [stream], seed)
        fleet.run(WARM_SECONDS)
        fleet.change(stream, per_second=0.45 * engines)
        return _quiet(fleet, 2 * HOUR)

    return scenario


STUTTER = (
    Scenario("10 s of 60", "<= 300 s, 1 relaunch", _one(10, 60)),
    Scenario("5 s of 30", "<= 300 s, 1 relaunch", _one(5, 30)),
    Scenario("20 s of 60", "<= 300 s, 1 relaunch", _one(20, 60)),
    Scenario("28 s of 60", "<= 300 s, 1 relaunch", _one(28, 60)),
    Scenario("10 s of 28", "<= 300 s, 1 relaunch", _one(10, 28)),
    Scenario("3 s of 10", "<= 300 s, 1 relaunch", _one(3, 10)),
    Scenario("3 s of 10, 4/s", "<= 300 s, 1 relaunch", _one(3, 10, 4.0)),
    Scenario("10 s of 60, 4/s", "<= 300 s, 1 relaunch", _one(10, 60, 4.0)),
    Scenario("5 s of 30, 4/s", "<= 300 s, 1 relaunch", _one(5, 30, 4.0)),
    Scenario("10 s of 60, 0.8/s", "<= 900 s, 1 relaunch", _one(10, 60, 0.8)),
    Scenario("5 s of 30, 0.8/s", "<= 900 s, 1 relaunch", _one(5, 30, 0.8)),
    Scenario("20 s of 60, 0.8/s", "<= 900 s, 1 relaunch", _one(20, 60, 0.8)),
    Scenario("of two, 10 s of 60", "<= 300 s, 1 relaunch", _one(10, 60, LOAD / 4, 2)),
    Scenario("two of eight", "both relaunched, no others", _two_of_eight),
    Scenario("all, together", "0 drains, 1 alert", _all(10, 60, 0.0)),
    Scenario("all, one by one", "0 drains, 1 alert", _all(10, 60, 7.0)),
    Scenario("all but one", "0 drains, 1 alert", _all(10, 60, 7.0, but=1)),
    Scenario("stutter not cured", "1 relaunch, degraded, 1 alert", _incurable),
    Scenario("lone, 20 s of 60", "<= 600 s, 1 relaunch", _lone),
    Scenario("one pause of 25 s", "0 flags, 0 relaunches", _once),
    Scenario("heavy tails, 3 h", "0 flags, 0 relaunches", _heavy(8, 1)),
    Scenario("heavy tails in bursts, 3 h", "0 flags, 0 relaunches", _heavy(8, 12)),
    Scenario("heavy tails, lone, 3 h", "0 flags, 0 relaunches", _heavy(1, 4)),
    Scenario("KV cache full, 2 h", "0 flags, 0 relaunches", _full(8)),
    Scenario("KV cache full, of two, 2 h", "0 flags, 0 relaunches", _full(2)),
)
