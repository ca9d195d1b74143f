"""One run under control: its load, its fault, and what became of both."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from benchmarks.report import Goal, Report
from modelserver.store.fleet.engines import read_engines
from modelserver.values import Outcome
from tests.chaos.control.traffic import Mix, Traffic
from tests.chaos.control.watch import Seen, Watch, is_calibrated
from tests.chaos.load import Ground, Load
from tests.engine.openai_api import answer_text
from tests.support.processes import eventually

COLUMNS = ("run", "sent", "answered", "lost", "wrong", "aborted", "failed attempts")
COLUMNS += ("stored twice", "flagged s", "drained s", "ready s", "relaunches")
COLUMNS += ("others flagged", "suspected", "p50/p99 before", "during", "after")
#: How many requests are answered before a fault.
CALIBRATION_REQUESTS = 300
#: How long these requests may take, in seconds.
CALIBRATION_SECONDS = 180.0
#: How long is waited for what becomes of an engine, in seconds.
PATIENCE = 200.0
#: How long requests go on after that, in seconds.
AFTER_SECONDS = 20.0
#: How long all answers may take after the last request was sent, in seconds.
SETTLE_SECONDS = 150.0


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of one run. Seconds count from the fault, NaN for never.

    ``aborted`` are attempts that control called off, ``failed`` those that failed by
    their engine; ``flagged`` is when control took the sick engine out of service.
    ``others_flagged`` counts that of other engines, and ``suspected`` suspicions of
    them. ``quantiles`` are the p50 and p99 of request seconds before, during, after.
    """

    name: str
    sent: int
    answered: int
    wrong: int
    aborted: int
    failed: int
    stored_twice: int
    flagged: float
    drained: float
    ready: float
    relaunches: tuple[int, ...]
    others_flagged: int
    others_relaunched: int
    suspected: int
    quantiles: tuple[str, str, str]

    @property
    def lost(self) -> int:
        """Requests without an answer."""
        return self.sent - self.answered

    def row(self) -> tuple[Any, ...]:
        """The run as a row under COLUMNS."""
        return (
            *(self.name, self.sent, self.answered, self.lost, self.wrong),
            *(self.aborted, self.failed, self.stored_twice),
            *(self.flagged, self.drained, self.ready),
            " ".join(map(str, self.relaunches)),
            *(self.others_flagged, self.suspected, *self.quantiles),
        )


class Run:
    """Load on a fleet, and a watch over it. A context manager.

    ``sick`` is the engine that the fault strikes, "" for none.
    """

    def __init__(self, ground: Ground, engines: Sequence[str], mix: Mix) -> None:
        self.ground = ground
        self.engines = engines
        self.sick = ""
        self.struck_at = self.over_at = float("nan")
        self.load = Load(ground)
        self.watch = Watch(ground.store)
        self.traffic = Traffic(self.load, mix)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.traffic.stop()
        self.watch.stop()

    def calibrate(self, models: int = 1) -> None:
        """Wait until control knows the engines of so many models."""

        def known() -> bool:
            enough = self.load.answered() >= CALIBRATION_REQUESTS
            return enough and is_calibrated(self.ground.store, models)

        eventually(known, CALIBRATION_SECONDS)

    def strike(self, sick: str = "") -> None:
        """Note that the fault begins now, on an engine or on all."""
        self.sick, self.struck_at = sick, time.monotonic()

    def await_ready(self, patience: float = PATIENCE) -> None:
        """Wait until the sick engine's next incarnation serves, or for so long."""
        deadline = self.struck_at + patience
        while time.monotonic() < deadline and self._ready_at() != self._ready_at():
            time.sleep(0.2)
        self.over()

    def over(self) -> None:
        """The fault is over; the load goes on for a while, and ends."""
        self.over_at = time.monotonic()
        time.sleep(AFTER_SECONDS)

    def finish(self, name: str, echoes: bool = True) -> Outcomes:
        """Stop the load, wait for the answers, and account for everything.

        ``echoes``: the engines are test engines, whose answers are known.
        """
        self.traffic.stop()
        self.load.settle(within=SETTLE_SECONDS)
        self.watch.stop()
        results = self.load.results()
        prompts, struck = self.load.prompts, self.struck_at
        others = [each for each in self.watch.history if each.engine != self.sick]
        starts = [
            read_engines(self.ground.store)[name].incarnation - 1
            for name in self.engines
        ]
        attempts = self.watch.attempts
        return Outcomes(
            name=name,
            sent=len(prompts),
            answered=len(results),
            wrong=sum(
                answer_text(prompts[key]) != text if echoes else not _is_text(text)
                for key, text in results.items()
            ),
            aborted=len(attempts[Outcome.CANCELLED]),
            failed=len(attempts[Outcome.ENGINE_FAULT]),
            stored_twice=sum(n > 1 for n in self.load.watcher.stored.values()),
            flagged=self._taken_down_at() - struck,
            drained=self._drained_at() - struck,
            ready=self._ready_at() - struck,
            relaunches=tuple(starts),
            others_flagged=sum(each.is_taken_down for each in others),
            others_relaunched=sum(
                starts[place]
                for place, engine in enumerate(self.engines)
                if engine != self.sick
            ),
            suspected=sum(each.health == "suspect" for each in others),
            quantiles=self._quantiles(),
        )

    def _taken_down_at(self) -> float:
        return self.watch.first(
            lambda seen: seen.engine == self.sick and seen.is_taken_down, self.struck_at
        )

    def _drained_at(self) -> float:
        """When it was empty, or given up as hopeless."""

        def drained(seen: Seen) -> bool:
            held = seen.health.is_held and seen.health != "draining"
            return seen.engine == self.sick and held

        return self.watch.first(drained, self.struck_at)

    def _ready_at(self) -> float:
        first = [each for each in self.watch.history if each.engine == self.sick]
        before = [each.incarnation for each in first if each.at <= self.struck_at]

        def serves(seen: Seen) -> bool:
            later = seen.engine == self.sick and seen.incarnation > max(before)
            return later and seen.serves and not seen.health.is_held

        return self.watch.first(serves, self.struck_at) if before else float("nan")

    def _quantiles(self) -> tuple[str, str, str]:
        began = self.load.accepted_at
        ended = self.load.watcher.answered
        parts: tuple[list[float], list[float], list[float]] = ([], [], [])
        for key, at in began.items():
            if key in ended:
                place = int(at >= self.struck_at) + int(at >= self.over_at)
                parts[place].append(ended[key] - at)
        before, during, after = (_middle_and_tail(part) for part in parts)
        return before, during, after


def _is_text(result: object) -> bool:
    return isinstance(result, str) and bool(result)


def _middle_and_tail(seconds: list[float]) -> str:
    if not seconds:
        return "-"
    ordered = sorted(seconds)
    last = len(ordered) - 1
    return f"{ordered[last // 2]:.2f}/{ordered[int(0.99 * last)]:.2f}"


def promises(outcomes: Sequence[Outcomes], may_abort: bool = False) -> list[Goal]:
    """What holds in every run, whatever the fault."""
    none = [
        ("lost", sum(each.lost for each in outcomes)),
        ("wrong", sum(each.wrong for each in outcomes)),
        ("stored twice", sum(each.stored_twice for each in outcomes)),
        ("healthy engines relaunched", sum(e.others_relaunched for e in outcomes)),
        ("healthy engines flagged", sum(each.others_flagged for each in outcomes)),
    ]
    if not may_abort:
        none.append(("aborted", sum(each.aborted for each in outcomes)))
    return [Goal(name, figure, 0, at_most=True) for name, figure in none]


def relaunched_once(outcome: Outcomes, within: float) -> list[Goal]:
    """Goals of a run whose sick engine is found and relaunched, once."""
    own = sum(outcome.relaunches) - outcome.others_relaunched
    latest = max(PATIENCE, within + 60)
    return [
        Goal(f"{outcome.name} flagged", outcome.flagged, within, "s", at_most=True),
        Goal(f"{outcome.name} ready", outcome.ready, latest, "s", at_most=True),
        Goal(f"{outcome.name} relaunches at least", own, 1),
        Goal(f"{outcome.name} relaunches", own, 1, at_most=True),
    ]


def report(outcomes: Sequence[Outcomes], goals: Sequence[Goal], *notes: str) -> Report:
    """The report of some runs."""
    rows = tuple(each.row() for each in outcomes)
    return Report(COLUMNS, rows, tuple(goals), notes)
