"""Control beyond the acceptance scenarios: other fleets, other loads, other faults."""

import math
from collections.abc import Callable

from modelserver.policy.health.memory import Health
from tests.scenarios.fleet import Fleet
from tests.scenarios.slots import host, model
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
    warm,
)
from tests.scenarios.traffic import Lengths, Stream


def judge(
    fleet: Fleet,
    seconds: float,
    fault: dict[str, float | int | bool],
    name: str = "m-0",
    run: float = 20 * MINUTE,
) -> Got:
    """Break one engine: taken away in time, relaunched once, nobody else touched."""
    began = fleet.now
    fleet.break_engine(name, **fault)
    fleet.run(run)
    delay = first_drain(fleet, began, name)
    relaunches = len(fleet.store.relaunches(began))
    others = others_touched(fleet, began, name)
    text = f"{delay:.0f} s, {relaunches} relaunch, {others} others"
    return conclude(fleet, text, delay <= seconds and relaunches == 1 and not others)


def _slow_of(engines: int, factor: float) -> Callable[[int], Got]:
    def scenario(seed: int) -> Got:
        fleet = warm(seed, engines, LOAD * engines / 8)
        return judge(fleet, 120, {"factor": factor})

    return scenario


def untouched(fleet: Fleet, seconds: float, since: float = 0.0) -> Got:
    """Let time pass: nobody is taken away or relaunched."""
    fleet.run(seconds)
    drains, relaunches = (
        len(fleet.store.drains(since)),
        len(fleet.store.relaunches(since)),
    )
    text = f"{drains} drains, {relaunches} relaunches"
    return conclude(fleet, text, not drains and not relaunches)


def _two_models(seed: int) -> Got:
    """Two models share the hosts; an engine of the smaller one becomes slow."""
    hosts = [host(f"h{n}", 2) for n in range(4)]
    models = (model("m", 3), model("n", 5))
    streams = [
        Stream("m", 6.0, wander=0.2),
        Stream("n", 9.0, Lengths(prompt_median=2000, completion_median=60), 0.2),
    ]
    fleet = Fleet(hosts, models, streams, seed)
    fleet.run(20 * MINUTE)
    return judge(fleet, 120, {"factor": 2.0}, "m-1")


def _slow_type(seed: int) -> Got:
    """Two types of GPU, and one engine on the slower type becomes slow."""
    hosts = [host(f"h{n}", 2, "slow" if n % 2 else "fast") for n in range(4)]
    fleet = Fleet(hosts, (model(),), [Stream("m", 12.0, wander=0.2)], seed)
    fleet.run(20 * MINUTE)
    slow = next(name for name, slot in fleet.slots.items() if slot.report.host == "h1")
    return judge(fleet, 120, {"factor": 2.0}, slow)


def _mixed_long_prompts(seed: int) -> Got:
    """Two types of GPU, and all prompts become ten times longer."""
    hosts = [host(f"h{n}", 2, "slow" if n == 0 else "fast") for n in range(4)]
    fleet = Fleet(hosts, (model(),), [Stream("m", 12.0, wander=0.2)], seed)
    fleet.run(20 * MINUTE)
    began = fleet.now
    fleet.change(fleet.streams[0], prompt_times=10.0)
    return untouched(fleet, 15 * MINUTE, began)


def _bursts(seed: int) -> Got:
    """Requests come forty at a time."""
    fleet = new_fleet(seed, load=12.0, wander=0.3)
    fleet.streams[0].burst = 40
    return untouched(fleet, 2 * HOUR)


def _burst_slow(seed: int) -> Got:
    fleet = new_fleet(seed, load=12.0)
    fleet.streams[0].burst = 40
    fleet.run(20 * MINUTE)
    return judge(fleet, 150, {"factor": 2.0})


def _long_outputs(seed: int, factor: float) -> Got:
    """Answers of thousands of tokens, and one slow engine; or none."""
    fleet = new_fleet(seed, load=2.5, wander=0.3)
    fleet.streams[0].lengths = Lengths(
        completion_median=3000, completion_sigma=0.5, completion_most=16_000
    )
    fleet.run(40 * MINUTE)
    if factor == 1.0:
        return untouched(fleet, 2 * HOUR)
    return judge(fleet, 300, {"factor": factor})


def _late_books(seed: int) -> Got:
    """Prompt tokens are counted only when a request ends, and prompts get longer."""
    fleet = new_fleet(seed)
    fleet.late_prompts = True
    fleet.run(20 * MINUTE)
    began = fleet.now
    fleet.change(fleet.streams[0], prompt_times=10.0)
    return untouched(fleet, 15 * MINUTE, began)


def _all_slow(seed: int) -> Got:
    """All engines become slow together: an alert, and nobody is taken away."""
    fleet = warm(seed)
    began = fleet.now
    for name in fleet.slots:
        fleet.break_engine(name, factor=2.0)
    fleet.run(20 * MINUTE)
    drains, alerts = len(fleet.store.drains(began)), len(fleet.store.alerts(began))
    text = f"{drains} drains, {alerts} alert"
    return conclude(fleet, text, drains == 0 and alerts == 1)


def _all_fail_a_little(seed: int) -> Got:
    """Every engine fails at a tenth of the requests: not one engine's fault."""
    fleet = warm(seed)
    began, before = fleet.now, dict(fleet.counts)
    for name in fleet.slots:
        fleet.break_engine(name, errors=0.1)
    got = untouched(fleet, 15 * MINUTE, began)
    good, sent = (fleet.counts[each] - before[each] for each in ("done", "sent"))
    text = f"{got.text}, {good / sent:.2f} answered"
    return Got(text, got.ok and good >= 0.95 * sent)


def _half_hang(seed: int) -> Got:
    """Half the fleet hangs: relaunched by and by, as the guards allow."""
    fleet = warm(seed)
    began = fleet.now
    for name in ("m-0", "m-1", "m-2", "m-3"):
        fleet.break_engine(name, hang=True)
    fleet.run(HOUR)
    relaunches = len(fleet.store.relaunches(began))
    text = f"{relaunches} relaunches"
    return conclude(fleet, text, relaunches == 4)


def _slow_when_loaded(seed: int) -> Got:
    """Slow only with six requests at once: an idle canary alone would not see it."""
    fleet = warm(seed)
    return judge(fleet, 180, {"factor": 2.0, "from_batch": 6})


def _slow_when_crowded(seed: int) -> Got:
    """Slow beyond what canaries show: believed, told to people, never relaunched.

    Twice it is verified until it is believed, and then where none of its requests is
    well any more: so seems a fault that took the place of this one.
    """
    fleet = warm(seed)
    began = fleet.now
    fleet.break_engine("m-3", factor=2.0, from_batch=10)
    fleet.run(HOUR)
    relaunches, drains = (
        len(fleet.store.relaunches(began)),
        len(fleet.store.drains(began)),
    )
    alerts = [each for each in fleet.store.alerts(began) if each[1] == "m-3"]
    text = f"{relaunches} relaunches, {drains} drains, {len(alerts)} alert"
    return conclude(fleet, text, not relaunches and drains <= 4)


def _broken_from_the_start(seed: int) -> Got:
    """An engine that is slow from its first start is not learned as normal."""
    fleet = new_fleet(seed)
    fleet.run(10.0)
    fleet.break_engine("m-3", factor=2.0, sticky=True)
    fleet.run(HOUR)
    own, others = fleet.store.memory.engines["m-3"], others_touched(fleet, 0.0, "m-3")
    relaunches = len(fleet.store.relaunches())
    ok = own.health is Health.DEGRADED and relaunches == 1 and not others
    return conclude(fleet, f"{own.health}, {relaunches} relaunch", ok)


def _degraded_recovers(seed: int) -> Got:
    """A degraded engine that becomes well gets all its requests again."""
    fleet = warm(seed)
    fleet.break_engine("m-3", factor=2.5, sticky=True)
    fleet.run(20 * MINUTE)
    was = fleet.store.memory.engines["m-3"].health
    fleet.break_engine("m-3")
    fleet.run(HOUR)
    own, relaunches = fleet.store.memory.engines["m-3"], len(fleet.store.relaunches())
    ok = was is Health.DEGRADED and own.health is Health.HEALTHY and relaunches == 1
    return conclude(fleet, f"{was}, then {own.health}", ok)


def _degraded_then(seconds: float, **fault: float) -> Callable[[int], Got]:
    """A relaunch did not help against one fault; another one is found like a first."""

    def scenario(seed: int) -> Got:
        fleet = warm(seed)
        fleet.break_engine("m-3", factor=2.0, sticky=True)
        fleet.run(25 * MINUTE)
        was = fleet.store.memory.engines["m-3"].health
        got = judge(fleet, seconds, {"factor": 2.0, **fault}, "m-3")
        ok = got.ok and was is Health.DEGRADED
        return Got(f"{was}, {got.text}", ok)

    return scenario


def _fails_once_relaunched(seed: int) -> Got:
    """It fails as soon as it is back, when it may not be relaunched: later it is."""
    fleet = warm(seed)
    began = fleet.now
    fleet.break_engine("m-3", factor=3.0)
    while not fleet.store.relaunches(began) and fleet.now < began + 10 * MINUTE:
        fleet.run(5.0)
    fleet.run(fleet.load_seconds + 5.0)
    fleet.break_engine("m-3", errors=0.2)
    fleet.run(30 * MINUTE)
    own, relaunches = fleet.store.memory.engines["m-3"], fleet.store.relaunches(began)
    delay = relaunches[-1][0] - relaunches[0][0] if relaunches else math.inf
    others = others_touched(fleet, began, "m-3")
    text = f"{len(relaunches)} relaunches, {delay:.0f} s apart, then {own.health}"
    ok = len(relaunches) == 2 and delay <= 15 * MINUTE and not others
    return conclude(fleet, text, ok and own.health is Health.HEALTHY)


def _wavering(seed: int, factor: float) -> Got:
    """Engines whose speed goes up and down by a twentieth; one is slow, or none."""
    fleet = new_fleet(seed, load=12.0, wander=0.3)
    fleet.waver = 0.05
    fleet.run(20 * MINUTE)
    if factor == 1.0:
        return untouched(fleet, 2 * HOUR)
    return judge(fleet, 180, {"factor": factor})


VARIATIONS = (
    *(
        Scenario(
            f"{n} engines, one {f:g}x slow", "<= 120 s, 1 relaunch", _slow_of(n, f)
        )
        for n, f in ((2, 2.0), (2, 3.0), (3, 2.0), (4, 1.6), (8, 2.0), (16, 1.6))
    ),
    Scenario("lone, 2x slow", "<= 120 s, 1 relaunch", _slow_of(1, 2.2)),
    Scenario("two models, one 2x slow", "<= 120 s, 1 relaunch", _two_models),
    Scenario("slow GPUs, one 2x slow", "<= 120 s, 1 relaunch", _slow_type),
    Scenario("mixed GPUs, prompts x 10", "0 drains", _mixed_long_prompts),
    Scenario("bursts of 40, healthy", "0 drains", _bursts),
    Scenario("bursts of 40, one 2x slow", "<= 150 s, 1 relaunch", _burst_slow),
    Scenario("long answers, healthy", "0 drains", lambda s: _long_outputs(s, 1.0)),
    Scenario(
        "long answers, one 2x slow",
        "<= 300 s, 1 relaunch",
        lambda s: _long_outputs(s, 2.0),
    ),
    Scenario("wavering, healthy", "0 drains", lambda s: _wavering(s, 1.0)),
    Scenario(
        "wavering, one 1.6x slow", "<= 180 s, 1 relaunch", lambda s: _wavering(s, 1.6)
    ),
    Scenario("prompts x 10, counted late", "0 drains", _late_books),
    Scenario("all 2x slow", "0 drains, 1 alert", _all_slow),
    Scenario("all fail at 10 %", "0 drains, all answered", _all_fail_a_little),
    Scenario("half the fleet hangs", "4 relaunches", _half_hang),
    Scenario("slow with a batch of 6", "<= 180 s, 1 relaunch", _slow_when_loaded),
    Scenario(
        "slow with a batch of 10", "0 relaunches, <= 4 drains", _slow_when_crowded
    ),
    Scenario("slow from the start", "1 relaunch, degraded", _broken_from_the_start),
    Scenario("degraded, then well", "degraded, then healthy", _degraded_recovers),
    Scenario(
        "degraded, then 6x slow",
        "<= 90 s, 1 relaunch",
        _degraded_then(90.0, factor=6.0),
    ),
    Scenario(
        "degraded, then 30 % errors",
        "<= 90 s, 1 relaunch",
        _degraded_then(90.0, errors=0.3),
    ),
    Scenario(
        "errors after a relaunch", "2 relaunches, <= 900 s", _fails_once_relaunched
    ),
)
