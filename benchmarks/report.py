"""One report for benchmarks, fault runs and scenarios: a table, then its goals.

``STRICT=1`` in the environment makes a goal that is short the program's failure, and
``NAME=...`` (or the first argument) chooses one case. Without them a run fails only if
a case could not be carried out.
"""

import json
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"

Cell = str | int | float


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure and what it should be: at least ``goal``, or at most."""

    name: str
    figure: float
    goal: float
    unit: str = ""
    at_most: bool = False

    @property
    def ok(self) -> bool:
        """Whether the figure reaches the goal; a figure that is missing does not."""
        if math.isnan(self.figure):
            return False
        if self.at_most:
            return self.figure <= self.goal
        return self.figure >= self.goal

    def __str__(self) -> str:
        """The goal's line in a report: four words, so that a program can read it."""
        name = (
            f"{self.name} {self.unit}".strip().replace(" ", "-").replace("/", "-per-")
        )
        figure, goal = (
            show(value).replace(",", "") for value in (self.figure, self.goal)
        )
        sign = "<=" if self.at_most else ">="
        return f"{'ok' if self.ok else 'short'} {name} {figure} (goal {sign}{goal})"


@dataclass(frozen=True, slots=True)
class Report:
    """What one case found. ``notes`` say what a reader must know to read it."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    goals: tuple[Goal, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Table, notes and goals as text."""
        cells = [self.columns, *[tuple(map(show, row)) for row in self.rows]]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if place == 0 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in cells
        ]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, *map(str, self.goals)])


Case = Callable[[], Report]


def show(value: Cell) -> str:
    """A cell as text; numbers with at most four digits that mean something."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return "-" if math.isnan(value) else "never"
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def main(suite: str, cases: Mapping[str, Case], argv: Sequence[str]) -> int:
    """Run all cases, or the one that is named; returns the exit status."""
    name = argv[0] if argv else os.environ.get("NAME", "")
    if name and name not in cases:
        print(f'no case "{name}"; there are: {", ".join(cases)}', file=sys.stderr)
        return 2
    # Unwind at SIGTERM too, so that what a case has started ends with it.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    short, broken = 0, 0
    for case in [name] if name else list(cases):
        try:
            short += _run(suite, case, cases[case])
        except Exception:
            # The others still say something.
            traceback.print_exc()
            print(f"broken {case}: it could not be carried out", flush=True)
            broken += 1
    if broken:
        return 1
    return int(bool(short) and os.environ.get("STRICT") == "1")


def _run(suite: str, name: str, case: Case) -> int:
    print(f"\n{suite} {name}: {(case.__doc__ or '').strip().splitlines()[0]}")
    began, load = time.monotonic(), os.getloadavg()[0]
    report = case()
    seconds = time.monotonic() - began
    print(report)
    print(f"({seconds:.0f} s; load of the machine before: {load:.1f})", flush=True)
    RESULTS.mkdir(exist_ok=True)
    values = {
        "suite": suite,
        "name": name,
        "seconds": round(seconds, 1),
        "load_before": load,
        "columns": report.columns,
        "rows": report.rows,
        "notes": report.notes,
        "goals": [asdict(goal) | {"ok": goal.ok} for goal in report.goals],
    }
    path = RESULTS / f"{suite}-{name}.json"
    path.write_text(json.dumps(_plain(values), indent=1) + "\n")
    return sum(not goal.ok for goal in report.goals)


def _plain(value: Any) -> Any:
    """The value as JSON has it, which knows no infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value
