"""The acceptance scenarios of control: what goes wrong, and what should follow.

Each is a function of a seed. Whatever else it asks for, no task may be lost, none may
be answered twice, and never may more engines of a model be down than the budget allows.
"""

from collections.abc import Callable
from dataclasses import replace

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


def broken(
    seconds: float, fault: dict[str, float], run: float = 15 * MINUTE
) -> Callable[[int], Got]:
    """One of eight gets a fault: taken away in time, relaunched once, nobody else."""

    def scenario(seed: int) -> Got:
        fleet = warm(seed)
        began = fleet.now
        fleet.break_engine("m-3", **fault)
        fleet.run(run)
        delay = first_drain(fleet, began, "m-3")
        relaunches = len(fleet.store.relaunches(began))
        others = others_touched(fleet, began, "m-3")
        aborted = fleet.counts["aborted"]
        ok = delay <= seconds and relaunches == 1 and not others and not aborted
        text = f"{delay:.0f} s, {relaunches} relaunch"
        text += f", {others} others" if others else ""
        text += f", {aborted} aborted" if aborted else ""
        return conclude(fleet, text, ok)

    return scenario


def busy(seed: int, engines: int = 8, **changes: float) -> Got:
    """More or longer requests for a quarter of an hour: nothing is taken away."""
    fleet = warm(seed, engines, LOAD * engines / 8)
    began, stream = fleet.now, fleet.streams[0]
    changes = {
        name: value * (stream.per_second if name == "per_second" else 1)
        for name, value in changes.items()
    }
    fleet.change(stream, **changes)
    fleet.run(15 * MINUTE)
    drains, relaunches = (
        len(fleet.store.drains(began)),
        len(fleet.store.relaunches(began)),
    )
    text = f"{drains} drains, {relaunches} relaunches"
    wanted = relaunches == 0 if engines == 1 else drains == 0
    return conclude(fleet, text, wanted)


def healthy(seed: int, seconds: float = 3 * HOUR) -> Got:
    """Hours with a load and a mix that wander: nobody is taken away."""
    fleet = new_fleet(seed, load=9.0, wander=0.4)
    fleet.run(seconds)
    drains = len(fleet.store.drains())
    return conclude(fleet, f"{drains} drains", drains == 0)


def hang(seed: int, token_counter: bool) -> Got:
    """One hangs: relaunched in time, and all that it had is answered elsewhere."""
    fleet = warm(seed)
    fleet.token_counter = token_counter
    fleet.run(MINUTE)
    began, allowed = fleet.now, 45 if token_counter else 90
    fleet.break_engine("m-3", hang=True)
    fleet.run(10 * MINUTE)
    delay = first_drain(fleet, began, "m-3")
    relaunches, others = (
        len(fleet.store.relaunches(began)),
        others_touched(fleet, began, "m-3"),
    )
    text = f"{delay:.0f} s, {relaunches} relaunch, {fleet.counts['aborted']} rerun"
    return conclude(fleet, text, delay <= allowed and relaunches == 1 and not others)


def errors(seed: int) -> Got:
    """One fails at every fifth request: taken away before many have failed."""
    fleet = warm(seed)
    began = fleet.now
    fleet.break_engine("m-3", errors=0.2)
    fleet.run(15 * MINUTE)
    delay = first_drain(fleet, began, "m-3")
    failed, relaunches = (
        fleet.counts["failed attempts"],
        len(fleet.store.relaunches(began)),
    )
    ok = delay <= 90 and failed <= 50 and relaunches == 1
    ok = ok and not others_touched(fleet, began, "m-3")
    return conclude(fleet, f"{delay:.0f} s, {failed} failed", ok)


def lone_slow(seed: int) -> Got:
    """The only engine becomes slow: relaunched once, as that pays."""
    fleet = warm(seed, 1, LOAD / 8)
    began = fleet.now
    fleet.break_engine("m-0", factor=3.0)
    fleet.run(20 * MINUTE)
    delay, relaunches = (
        first_drain(fleet, began, "m-0"),
        len(fleet.store.relaunches(began)),
    )
    text = f"{delay:.0f} s, {relaunches} relaunch"
    return conclude(fleet, text, delay <= 120 and relaunches == 1)


def incurable(seed: int) -> Got:
    """A relaunch does not help: one, then it serves as degraded, and people know."""
    fleet = warm(seed)
    began = fleet.now
    fleet.break_engine("m-3", factor=3.0, sticky=True)
    fleet.run(40 * MINUTE)
    relaunches, own = (
        len(fleet.store.relaunches(began)),
        fleet.store.memory.engines["m-3"],
    )
    alerts = [each for each in fleet.store.alerts(began) if each[1] == "m-3"]
    text = f"{relaunches} relaunch, {own.health}, {len(alerts)} alert"
    ok = relaunches == 1 and own.health is Health.DEGRADED and len(alerts) == 1
    return conclude(fleet, text, ok and not others_touched(fleet, began, "m-3"))


def two_slow(seed: int) -> Got:
    """Two of eight become slow: both are relaunched, never more than two down."""
    fleet = warm(seed)
    began = fleet.now
    for name in ("m-2", "m-5"):
        fleet.break_engine(name, factor=3.0)
    fleet.run(20 * MINUTE)
    names = sorted(name for _, name in fleet.store.relaunches(began))
    text = f"{' '.join(names)} relaunched, {fleet.most_down} down"
    ok = names == ["m-2", "m-5"] and not others_touched(fleet, began, *names)
    return conclude(fleet, text, ok)


def two_types(seed: int) -> Got:
    """Half the fleet is on GPUs of half the speed: that is how it is."""
    hosts = [host(f"h{n}", 2, "slow" if n % 2 else "fast") for n in range(4)]
    fleet = Fleet(hosts, (model(),), [Stream("m", 12.0, wander=0.2)], seed)
    fleet.run(HOUR)
    drains = len(fleet.store.drains())
    return conclude(fleet, f"{drains} drains", drains == 0)


def little_traffic(seed: int, load: float) -> Got:
    """Hardly any request comes, and one engine becomes slow."""
    fleet = new_fleet(seed, load=load)
    fleet.run(2 * HOUR)
    began = fleet.now
    fleet.break_engine("m-3", factor=3.0)
    fleet.run(20 * MINUTE)
    delay, relaunches = (
        first_drain(fleet, began, "m-3"),
        len(fleet.store.relaunches(began)),
    )
    ok = delay <= 180 and relaunches == 1
    ok = ok and not others_touched(fleet, began, "m-3")
    return conclude(fleet, f"{delay:.0f} s, {relaunches} relaunch", ok)


def limits(seed: int) -> Got:
    """An engine of half the speed gets what keeps its tokens as quick as asked for."""
    hosts = [host("h0", 3), host("h1", 1, "slow")]
    lengths = Lengths(prompt_median=100, completion_median=150)
    spec = replace(model(engines=4, max_running=512), itl_seconds=0.080)
    stream = Stream("m", 150.0, lengths)
    fleet = Fleet(hosts, (spec,), [stream], seed)
    fleet.run(5 * MINUTE)
    for slot in fleet.slots.values():
        slot.sim.history = []
    fleet.run(2 * MINUTE)
    slow = next(n for n, s in fleet.slots.items() if s.report.host == "h1")
    quick = [name for name in fleet.slots if name != slow]
    paces = {name: slot.sim.slowest_pace(0.95) for name, slot in fleet.slots.items()}
    limit = {name: slot.limit for name, slot in fleet.slots.items()}
    ratio = paces[slow] / (sum(paces[name] for name in quick) / 3)
    share = limit[slow] / (sum(limit[name] for name in quick) / 3)
    drains = len(fleet.store.drains())
    text = f"ITL {ratio:.2f}x, limit {share:.2f}"
    return conclude(fleet, text, ratio <= 1.3 and share < 0.6 and not drains)


def killed_worker(seed: int) -> Got:
    """A worker dies with requests: they run again, and none is counted any longer."""
    fleet = warm(seed)
    had = fleet.kill_worker("h1")
    left = sum(len(s.inflight) for s in fleet.slots.values() if s.report.host == "h1")
    fleet.run(10 * MINUTE)
    drains = len(fleet.store.drains())
    ok = had > 0 and left == 0 and not drains
    return conclude(fleet, f"{had} rerun, {left} still counted", ok)


def killed_controller(seed: int) -> Got:
    """Control dies while an engine drains: the next one resumes, one relaunch."""
    fleet = warm(seed)
    began = fleet.now
    fleet.break_engine("m-3", factor=3.0)
    while not fleet.store.drains(began) and fleet.now < began + 10 * MINUTE:
        fleet.run(5.0)
    fleet.restart_control(after=45.0)
    fleet.run(15 * MINUTE)
    relaunches, own = (
        len(fleet.store.relaunches(began)),
        fleet.store.memory.engines["m-3"],
    )
    ok = relaunches == 1 and own.health is Health.HEALTHY
    ok = ok and fleet.slots["m-3"].report.incarnation == 2
    return conclude(fleet, f"{relaunches} relaunch, {own.health}", ok)


def two_controllers(seed: int) -> Got:
    """Two controllers decide at once from the same figures: one relaunch."""
    fleet = warm(seed)
    fleet.store.controllers = 2
    began = fleet.now
    fleet.break_engine("m-3", factor=3.0)
    fleet.run(15 * MINUTE)
    relaunches = len(fleet.store.relaunches(began))
    ok = relaunches == 1 and fleet.slots["m-3"].report.incarnation == 2
    ok = ok and fleet.store.refused > 0
    return conclude(fleet, f"{relaunches} relaunch, {fleet.store.refused} refused", ok)


SCENARIOS = (
    Scenario("1 healthy, 3 h, wandering", "0 drains", healthy),
    Scenario("2 one 3x slow", "<= 90 s, 1 relaunch", broken(90, {"factor": 3.0})),
    Scenario("3 one 1.5x slow", "<= 180 s, 1 relaunch", broken(180, {"factor": 1.5})),
    Scenario(
        "4 ramp to 3x in 600 s",
        "<= 300 s, 1 relaunch",
        broken(300, {"factor": 3.0, "ramp_seconds": 600.0}, run=25 * MINUTE),
    ),
    Scenario("5a hang, tokens seen", "<= 45 s", lambda seed: hang(seed, True)),
    Scenario("5b hang, answers seen", "<= 90 s", lambda seed: hang(seed, False)),
    Scenario("6 20 % errors", "<= 90 s, <= 50 failed", errors),
    Scenario("7 load x 2.2", "0 drains", lambda seed: busy(seed, per_second=2.2)),
    Scenario("8 prompts x 10", "0 drains", lambda seed: busy(seed, prompt_times=10.0)),
    Scenario("9 lone, 3x slow", "<= 120 s, 1 relaunch", lone_slow),
    Scenario(
        "10a lone, load x 2.2",
        "0 relaunches",
        lambda seed: busy(seed, 1, per_second=2.2),
    ),
    Scenario(
        "10b lone, prompts x 10",
        "0 relaunches",
        lambda seed: busy(seed, 1, prompt_times=10.0),
    ),
    Scenario("11 relaunch in vain", "1 relaunch, degraded, 1 alert", incurable),
    Scenario("12 two slow", "both relaunched, <= 2 down", two_slow),
    Scenario("13 half on slow GPUs", "0 drains", two_types),
    Scenario(
        "14a 0.05 req/s in all", "<= 180 s", lambda seed: little_traffic(seed, 0.05)
    ),
    Scenario("14b 0.05 req/s each", "<= 180 s", lambda seed: little_traffic(seed, 0.4)),
    Scenario("15 limits", "ITL <= 1.3x, limit < 0.6", limits),
    Scenario("19 worker killed", "all rerun, 0 counted", killed_worker),
    Scenario("20a controller killed", "1 relaunch, healthy", killed_controller),
    Scenario("20b two controllers", "1 relaunch", two_controllers),
)
