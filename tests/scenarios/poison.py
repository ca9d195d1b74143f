"""Poison: requests at which any engine fails. They cost themselves and nothing else.

Each run is compared with one of the same requests whose workers know which of them no
engine can answer, and of which control leaves all engines alone.
"""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from random import Random

from tests.scenarios.engine import Request
from tests.scenarios.fleet import Fleet
from tests.scenarios.slots import Slot, host, model
from tests.scenarios.staging import (
    HOUR,
    LOAD,
    MINUTE,
    WARM_SECONDS,
    Got,
    Scenario,
    conclude,
    first_drain,
    others_touched,
    warm,
)
from tests.scenarios.traffic import Stream
from tests.scenarios.workers import Way

#: The least share of the oracle's good answers that there should be.
GOOD = 0.95
#: More requests than this may not wait beyond those of the oracle: five seconds' worth.
WAITING = 90
#: Seconds for which there is poison that goes on, ...
LASTING = 6 * MINUTE
#: ... and poison that ends.
ENDING = 10 * MINUTE
#: Seconds after which a request that does not end is called off.
DEADLINE = 2 * MINUTE
#: The tokens from which on an engine fails at prompts: a fifth of them.
UNBEARABLE_TOKENS = 1024

Change = Callable[[Fleet], None]


@dataclass(frozen=True, slots=True)
class Course:
    """What came of one run."""

    fleet: Fleet
    #: When it began.
    began: float
    #: Good answers after each step, and requests that waited then.
    good: tuple[int, ...]
    waiting: tuple[int, ...]

    @property
    def drains(self) -> int:
        """Engines that were taken away."""
        return len(self.fleet.store.drains(self.began))

    @property
    def relaunches(self) -> int:
        """Engines that were relaunched."""
        return len(self.fleet.store.relaunches(self.began))

    @property
    def told(self) -> int:
        """Alerts."""
        return len(self.fleet.store.alerts(self.began))


def run(
    fleet: Fleet, steps: list[tuple[float, Change]], way: Way = Way.CARRIED
) -> Course:
    """What comes of changes, each followed by so many seconds."""
    fleet = deepcopy(fleet)
    fleet.arrivals, fleet.workers.way = Random(fleet.seed), way
    if way is Way.ORACLE:
        fleet.control_until = math.inf
        wishes = fleet.store.wishes
        fleet.store.wishes = {n: replace(w, limit=0) for n, w in wishes.items()}
    began, before = fleet.now, fleet.counts["done"]
    good, waiting = [], []
    for seconds, change in steps:
        change(fleet)
        fleet.run(seconds)
        good.append(fleet.counts["done"] - before)
        waiting.append(fleet.workers.waiting)
    return Course(fleet, began, tuple(good), tuple(waiting))


def poisoned(share: float, late: bool = False, load: float = 1.0) -> Change:
    """This share of requests is poisonous, at so many times the usual load."""

    def change(fleet: Fleet) -> None:
        stream = fleet.streams[0]
        stream.poison, stream.poison_late = share, late
        fleet.change(stream, per_second=load * LOAD * len(fleet.slots) / 8)

    return change


def failing(errors: float, *engines: str) -> Change:
    """These engines fail at a share of their requests; all do if none is named."""

    def change(fleet: Fleet) -> None:
        for name in engines or fleet.slots:
            fleet.break_engine(name, errors=errors)

    return change


def both(*changes: Change) -> Change:
    """All of these at once."""

    def change(fleet: Fleet) -> None:
        for each in changes:
            each(fleet)

    return change


def unhurt(
    steps: list[tuple[float, Change]],
    engines: int = 8,
    alerts: int | None = None,
) -> Callable[[int], Got]:
    """As many good answers as the oracle has, and all engines are left alone."""

    def scenario(seed: int) -> Got:
        fleet = warm(seed, engines, LOAD * engines / 8)
        oracle, got = run(fleet, steps, Way.ORACLE), run(fleet, steps)
        text, ok = compared(got, oracle)
        ok = ok and not got.drains and not got.relaunches
        text += f", {got.drains} drains, {got.relaunches} relaunches, {got.told} alerts"
        ok = ok and alerts in (None, got.told)
        return conclude(got.fleet, text, ok)

    return scenario


def compared(got: Course, oracle: Course) -> tuple[str, bool]:
    """The good answers over those of the oracle, step by step, and what waits more."""
    shares = [mine / theirs for mine, theirs in zip(got.good, oracle.good, strict=True)]
    more = [
        mine - theirs for mine, theirs in zip(got.waiting, oracle.waiting, strict=True)
    ]
    text = f"{min(shares):.2f} good, {max(0, *more, 0)} wait"
    return text, min(shares) >= GOOD and max(more) <= WAITING


def found(
    steps: list[tuple[float, Change]],
    name: str = "m-3",
    seconds: float = 90.0,
    engines: int = 8,
) -> Callable[[int], Got]:
    """One engine is relaunched, once and in time, and nobody else is touched."""

    def scenario(seed: int) -> Got:
        fleet = warm(seed, engines, LOAD * engines / 8)
        oracle, got = run(fleet, steps, Way.ORACLE), run(fleet, steps)
        text, ok = compared(got, oracle)
        delay = first_drain(got.fleet, got.began, name)
        others = others_touched(got.fleet, got.began, name)
        text += f", {delay:.0f} s, {got.relaunches} relaunch, {others} others"
        ok = ok and delay <= seconds and got.relaunches == 1 and not others
        return conclude(got.fleet, text, ok)

    return scenario


def half_failing(
    errors: float, share: float, late: bool = False
) -> Callable[[int], Got]:
    """Half of the engines fail: each is taken away, the well ones never.

    A model has three relaunches; who gets none serves less, and people know.
    """

    def scenario(seed: int) -> Got:
        fleet = warm(seed)
        names = sorted(fleet.slots)[::2]
        steps = [(20 * MINUTE, both(poisoned(share, late), failing(errors, *names)))]
        oracle, got = run(fleet, steps, Way.ORACLE), run(fleet, steps)
        text, ok = compared(got, oracle)
        delays = [first_drain(got.fleet, got.began, name) for name in names]
        others = others_touched(got.fleet, got.began, *names)
        text += f", {max(delays):.0f} s, {got.relaunches} relaunches, {others} others"
        ok = ok and max(delays) <= 5 * MINUTE and 3 <= got.relaunches <= 4
        return conclude(got.fleet, text, ok and not others)

    return scenario


class _Endless(Fleet):
    """Poisonous requests do not fail: they run until their deadlines."""

    def _begin(self, slot: Slot, request: Request) -> None:
        if request.poisonous:
            request.completion = 10**6
        super()._begin(slot, request)
        request.fails = False

    def _look(self) -> None:
        for slot in self.slots.values():
            overdue = [
                each
                for each in slot.inflight.values()
                if each.poisonous and self.now - each.began >= DEADLINE
            ]
            for request in overdue:
                if not slot.sim.chunk:
                    slot.sim.advance(self.now)
                slot.sim.drop(request)
                del slot.inflight[request.id]
                self.counts["own faults"] += 1
                self._reschedule(slot)
        super()._look()


def endless(share: float, engines: int, counter: bool) -> Callable[[int], Got]:
    """Requests that never end take all places: nobody is relaunched for that."""

    def scenario(seed: int) -> Got:
        fleet = warm(seed, engines, LOAD * engines / 16)
        fleet.__class__, fleet.token_counter = _Endless, counter
        began, stream = fleet.now, fleet.streams[0]
        stream.poison = share
        fleet.run(20 * MINUTE)
        drains, relaunches = fleet.store.drains(began), fleet.store.relaunches(began)
        waiting = fleet.workers.waiting
        text = f"{len(drains)} drains, {len(relaunches)} relaunches, {waiting} wait"
        return Got(text, not drains and not relaunches and not fleet.lost())

    return scenario


class _Unbearable(Fleet):
    """Long prompts fail on one engine, whatever becomes of it, and on no other."""

    def _begin(self, slot: Slot, request: Request) -> None:
        super()._begin(slot, request)
        is_long = request.prompt >= UNBEARABLE_TOKENS
        request.fails = request.fails or (is_long and slot.report.id == "m-1")


def unbearable(engines: int) -> Callable[[int], Got]:
    """No relaunch helps: there are few, and nothing is said of the others."""

    def scenario(seed: int) -> Got:
        fleet = warm(seed, engines, LOAD * engines / 8)
        fleet.__class__, began = _Unbearable, fleet.now
        fleet.run(HOUR)
        own = fleet.store.memory.engines["m-1"].health
        relaunches, told = fleet.store.relaunches(began), fleet.store.alerts(began)
        of_all = sum(who == "m" for _, who, _ in told)
        others = others_touched(fleet, began, "m-1")
        text = f"{own}, {len(relaunches)} relaunches, {of_all} alerts of all"
        ok = 1 <= len(relaunches) <= 3 and not of_all and not others
        ok = ok and not fleet.counts["own faults"]
        return conclude(fleet, text, ok)

    return scenario


def single(load: float) -> Callable[[int], Got]:
    """One poisonous request at little load, and eight hosts with an engine each."""

    def scenario(seed: int) -> Got:
        hosts = [host(f"h{place}", 1) for place in range(8)]
        fleet = Fleet(hosts, (model(),), [Stream("m", load)], seed)
        fleet.run(WARM_SECONDS)
        one = Request(0, "m", 500, 0, 250, poisonous=True)
        got = run(fleet, [(HOUR, lambda fleet: fleet.send(one))])
        attempts = got.fleet.counts["failed attempts"]
        text = f"{attempts} attempts, {got.drains} drains, {got.relaunches} relaunches"
        ok = attempts <= 3 and not got.drains and not got.relaunches
        return conclude(got.fleet, text, ok)

    return scenario


def unwithdrawn(seed: int) -> Got:
    """A lone engine whose worker takes no fault back: it is left alone all the same."""
    fleet = warm(seed, 1, LOAD / 8)
    got = run(fleet, [(HOUR, poisoned(0.15))], Way.PLACED)
    text = f"{got.drains} drains, {got.relaunches} relaunches"
    return conclude(got.fleet, text, not got.drains and not got.relaunches)


def held_places(seed: int) -> Got:
    """Were places held and attempts begun anew, the same poison would be a fall."""
    fleet = warm(seed)
    steps = [(LASTING, poisoned(0.5, late=True))]
    oracle, got = run(fleet, steps, Way.ORACLE), run(fleet, steps, Way.PLACED)
    share = got.good[-1] / oracle.good[-1]
    return Got(f"{share:.2f} good", share < 0.5)


def _shares() -> list[Scenario]:
    """Poison on all engines, from a little to a lot."""
    alerts = {0.001: 0, 0.01: 0, 0.15: 1, 0.5: 1}
    return [
        Scenario(
            f"{100 * share:g} % fail {'late' if late else 'at once'}",
            ">= 0.95 good, 0 drains",
            unhurt([(LASTING, poisoned(share, late))], alerts=alerts.get(share)),
        )
        for share in (0.001, 0.01, 0.05, 0.15, 0.5)
        for late in (False, True)
    ]


def _off_and_on() -> Callable[[int], Got]:
    """Poison that comes and goes for an hour: people are told a few times."""
    steps = [(2 * MINUTE, poisoned(0.15, True)), (2 * MINUTE, poisoned(0.0))]
    return unhurt(15 * steps, alerts=5)


def _ending(load: float) -> Callable[[int], Got]:
    """Poison that ends; at more load than the fleet can bear, poison waits as well."""
    less = 1.0 if load == 1.0 else 0.5
    return unhurt(
        [(ENDING, poisoned(0.15, True, load)), (ENDING, poisoned(0.0, load=less))],
        alerts=2,
    )


POISON = (
    *_shares(),
    Scenario("15 % for 10 min", ">= 0.95 good, 2 alerts", _ending(1.0)),
    Scenario("15 %, and what waits", ">= 0.95 good, 2 alerts", _ending(2.5)),
    Scenario("15 %, off and on, 1 h", ">= 0.95 good, 5 alerts", _off_and_on()),
    Scenario("one request, 0.4 req/s", "<= 3 attempts, 0 drains", single(0.4)),
    Scenario("one request, 4 req/s", "<= 3 attempts, 0 drains", single(4.0)),
    Scenario(
        "lone engine, 15 % poison",
        ">= 0.95 good, 0 drains",
        unhurt([(LASTING, poisoned(0.15, True))], engines=1, alerts=1),
    ),
    Scenario("lone engine, never withdrawn", "0 drains", unwithdrawn),
    Scenario(
        "all fail at 10 % by chance",
        ">= 0.95 good, 1 alert",
        unhurt([(LASTING, failing(0.1))], alerts=1),
    ),
    Scenario(
        "m-3 alone fails at 15 %",
        "<= 180 s, 1 relaunch",
        found([(LASTING, failing(0.15, "m-3"))], seconds=180.0),
    ),
    Scenario(
        "m-3 alone fails at 50 %",
        "<= 90 s, 1 relaunch",
        found([(LASTING, failing(0.5, "m-3"))]),
    ),
    Scenario(
        "m-3 fails at 20 %, 15 % poison",
        "<= 180 s, 1 relaunch",
        found([(LASTING, both(poisoned(0.15), failing(0.2, "m-3")))], seconds=180.0),
    ),
    Scenario(
        "one of two fails at 30 %, 5 % poison",
        "<= 90 s, 1 relaunch",
        found([(LASTING, both(poisoned(0.05), failing(0.3, "m-1")))], "m-1", engines=2),
    ),
    Scenario("m-1 fails at long prompts", "<= 3 relaunches, of m-1", unbearable(8)),
    Scenario("the same of two", "<= 3 relaunches, of m-1", unbearable(2)),
    Scenario(
        "half of the engines fail at 20 %",
        "<= 300 s, 3 or 4 relaunches",
        half_failing(0.2, 0.0),
    ),
    Scenario(
        "the same at 50 %, 15 % poison",
        "<= 300 s, 3 or 4 relaunches",
        half_failing(0.5, 0.15, late=True),
    ),
    Scenario("15 % never end", "0 drains", endless(0.15, 8, counter=True)),
    Scenario("90 % never end, no counter", "0 drains", endless(0.9, 8, counter=False)),
    Scenario("the same, lone", "0 drains", endless(0.9, 1, counter=False)),
    Scenario("50 %, places held", "< 0.5 good: it is seen", held_places),
)
