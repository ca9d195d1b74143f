"""Requests that every engine fails at, among others: the others are not to notice."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.report import Goal, Report
from benchmarks.rig import CHAT_MODEL, Rig
from modelserver.store.fleet.engines import read_engines
from modelserver.store.fleet.measurements import read_counters
from modelserver.values import Outcome
from tests.chaos.control.fleet import ENGINES, Fleet
from tests.chaos.control.watch import Watch
from tests.chaos.load import Ground, Load
from tests.engine.openai_api import answer_text

#: Requests of each run, and the share of them that is poisonous.
REQUESTS = 5_000
POISONOUS = 0.15
#: What engines fail at.
MARK = " arsenic"
#: The share of an oracle's good answers a second that is promised.
PROMISED = 0.95
#: How a poisonous request ends.
IN_WORDS = "RequestError"
#: Most attempts of a poisonous request, on average.
MOST_ATTEMPTS = 3.0
#: How long all answers may take after the last request was sent, in seconds.
SETTLE_SECONDS = 400.0
#: Steps of a third of the time of other runs under control: 60 requests a second.
FAST = ("--step-seconds", "0.01")
COLUMNS = ("run", "good", "wrong", "lost", "failed in words", "stored twice")
COLUMNS += ("good/s", "oracle good/s", "attempts of each", "relaunches", "drains")


@dataclass(frozen=True, slots=True)
class PoisonedRun:
    """What became of one run's requests."""

    #: Good requests, and those of them that were answered rightly.
    good: int
    answered: int
    #: Poisonous requests, and those that ended with an error in the engine's words.
    poisonous: int
    told: int
    lost: int
    stored_twice: int
    per_second: float
    #: Attempts that failed.
    failed: int


def poison() -> Report:
    """15 % of 5,000 requests fail on every engine, at once, by status 500.

    On three engines under control, and on two hosts with an engine each. The oracle
    tries each poisonous request twice: its run has two requests in place of each, which
    are refused at once.
    """
    rows, goals = [], []
    for name, run in (("three engines", _controlled), ("two hosts", _two_hosts)):
        oracle, found, relaunches, drains = run()
        rows.append(_row(name, oracle, found, relaunches, drains))
        goals += _goals(name, oracle, found)
        goals += [
            Goal(f"{name} relaunches", relaunches, 0, at_most=True),
            Goal(f"{name} drains", drains, 0, at_most=True),
        ]
    return Report(COLUMNS, rows, goals)


def _row(
    name: str, oracle: PoisonedRun, found: PoisonedRun, relaunches: int, drains: int
) -> Sequence[str | int | float]:
    wrong, each = found.good - found.answered, found.failed / found.poisonous
    return (
        *(name, found.good, wrong, found.lost, found.told, found.stored_twice),
        *(found.per_second, oracle.per_second, each, relaunches, drains),
    )


def _goals(name: str, oracle: PoisonedRun, found: PoisonedRun) -> list[Goal]:
    share = found.per_second / oracle.per_second
    return [
        Goal(f"{name} good answers of an oracle's", share, PROMISED),
        Goal(f"{name} good", found.answered, found.good),
        Goal(f"{name} failed in words", found.told, found.poisonous),
        Goal(f"{name} lost", found.lost, 0, at_most=True),
        Goal(f"{name} stored twice", found.stored_twice, 0, at_most=True),
        Goal(
            f"{name} attempts", found.failed / found.poisonous, MOST_ATTEMPTS, "", True
        ),
    ]


def _controlled() -> tuple[PoisonedRun, PoisonedRun, int, int]:
    with Fleet(*FAST) as fleet:
        watch = Watch(fleet.store)

        def fault(**values: object) -> None:
            for engine in ENGINES:
                fleet.fault(engine, **values)

        oracle, found = _both(fleet, fault, ENGINES)
        watch.stop()
        engines = read_engines(fleet.store).values()
        relaunches = sum(each.incarnation - 1 for each in engines)
        drains = sum(each.is_taken_down for each in watch.history)
        return oracle, found, relaunches, drains


def _two_hosts() -> tuple[PoisonedRun, PoisonedRun, int, int]:
    with Rig("--latency", "0.5", engines=2, limit=16) as rig:
        rig.report(1, host="b")
        rig.worker()
        rig.worker(MODELSERVER_HOST="b")

        def fault(**values: object) -> None:
            for engine in rig.engines:
                engine.fault(**values)

        return *_both(rig, fault, [f"{CHAT_MODEL}-{n}" for n in range(2)]), 0, 0


def _both(
    ground: Ground, fault: Callable[..., None], engines: Sequence[str]
) -> tuple[PoisonedRun, PoisonedRun]:
    fault(status=400, marked=MARK)
    oracle = _run(ground, "oracle", 2, engines)
    fault(status=500, marked=MARK)
    return oracle, _run(ground, "poisoned", 1, engines)


def _run(ground: Ground, name: str, each: int, engines: Sequence[str]) -> PoisonedRun:
    """Send all, ``each`` for each poisonous one, and see what becomes of them."""
    load, chance, began = Load(ground, name), random.Random(1), time.monotonic()
    before = _failed(ground, engines)
    for _ in range(REQUESTS):
        if chance.random() < POISONOUS:
            for _ in range(each):
                load.ask(MARK, max_tokens=24)
        else:
            load.ask(max_tokens=24)
    load.settle(SETTLE_SECONDS)
    results, prompts = load.results(), load.prompts
    good = {key: text for key, text in prompts.items() if MARK not in text}
    right = [key for key in good if results.get(key) == answer_text(good[key])]
    last = max(load.watcher.answered.get(key, began) for key in right)
    told = sum(MARK in prompts[key] and _is_told(results[key]) for key in results)
    return PoisonedRun(
        good=len(good),
        answered=len(right),
        poisonous=len(prompts) - len(good),
        told=told,
        lost=len(prompts) - len(results),
        stored_twice=sum(n > 1 for n in load.watcher.stored.values()),
        per_second=len(right) / (last - began),
        failed=_failed(ground, engines) - before,
    )


def _failed(ground: Ground, engines: Sequence[str]) -> int:
    """Attempts that failed so far."""
    counts = [read_counters(ground.store, each) for each in engines]
    names = (Outcome.ENGINE_FAULT, Outcome.REPEATED)
    return sum(each.get(name, 0) for each in counts for name in names)


def _is_told(result: object) -> bool:
    return isinstance(result, dict) and result.get("exc_type") == IN_WORDS
