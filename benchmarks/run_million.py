"""A file of a million rows by ``modelserver batch run``: memory, pace and resume."""

import math
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import Elsewhere, Processes
from benchmarks.report import Goal, Report
from benchmarks.rig import CHAT_MODEL, Rig
from modelserver.store.fleet.workers import read_answers
from tests.support.batch_files import batch_command, batch_line, write_lines
from tests.support.processes import eventually

ROWS = int(os.environ.get("RUN_ROWS", "1000000"))
#: Rows of the file whose pace is compared.
SMALL_ROWS = 10_000
IN_FLIGHT = 256
#: The engine's seconds for a row: it is never what the others wait for.
ENGINE_SECONDS = 0.02
#: Characters of a prompt.
PROMPT_LENGTH = 300
#: A run is looked at so often, in seconds.
LOOK_SECONDS = 0.25
#: A run is told of after so many seconds.
TOLD_SECONDS = 20.0
#: The part of a run in which it is measured, as shares of its rows: at its end the
#: runner is killed and started again.
FIRST, LAST = 0.1, 0.9
#: A file may take so many seconds until it is looked at, or gone on with.
BEGIN_SECONDS = 600.0
#: The run is given up when no row was done for so long, in seconds.
STUCK_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class FileLook:
    """One look at a run: when, rows answered since its start, what the runner took."""

    at: float
    done: int
    rss_mb: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class SpentTime:
    """From the start of a command until something is so."""

    seconds: float
    #: CPU time of it: the same however busy the machine is.
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class FileFigures:
    """What was measured of one file."""

    rows: int
    megabytes: float
    #: From the start of the command until all is looked at.
    validate: SpentTime
    #: Rows a second between FIRST and LAST, and the cores that others used meanwhile.
    rate: float
    others: float
    #: The runner's CPU time for a row, in microseconds.
    cpu_us: float
    #: The runner's median memory after FIRST, and before LAST, in MB.
    early_mb: float
    late_mb: float
    #: From the second start until the next row stands in the output.
    resume: SpentTime
    #: Seconds from the last row until the output is sorted and the command ends.
    close: float


def run_million() -> Report:
    """RUN_ROWS rows (a million) of one file, beside 10,000 before and after it.

    Fast engines, one worker. The runner is killed by SIGKILL at 90 % and started again,
    with --sorted. Runner, worker, engine and server share the machine.
    """
    with Rig("--latency", str(ENGINE_SECONDS), limit=IN_FLIGHT) as rig:
        rig.worker()
        before = measure(rig, "before", SMALL_ROWS)
        whole = measure(rig, "whole", ROWS, is_killed=True)
        after = measure(rig, "after", SMALL_ROWS)
    small = statistics.mean((before.rate, after.rate))
    goals = (
        Goal("run-million growth", whole.late_mb - whole.early_mb, 5, "MB", True),
        Goal("run-million pace over 10,000 rows", whole.rate / small, 0.95),
        Goal("run-million resume", whole.resume.seconds, 10, "s", at_most=True),
    )
    columns = (
        *("rows", "file MB", "validate s", "CPU s"),
        *("rows/s", "others' cores", "CPU us/row"),
        *("MB at 10 %", "MB at 90 %", "resume s", "CPU s", "sort s"),
    )
    return Report(columns, tuple(map(_row, (before, whole, after))), goals)


def _row(found: FileFigures) -> tuple[str | float, ...]:
    begin = (found.validate.seconds, found.validate.cpu_seconds)
    pace = (found.rate, found.others, found.cpu_us)
    memory = (found.early_mb, found.late_mb)
    end = (found.resume.seconds, found.resume.cpu_seconds, found.close)
    return (f"{found.rows:,}", found.megabytes, *begin, *pace, *memory, *end)


def measure(rig: Rig, name: str, rows: int, is_killed: bool = False) -> FileFigures:
    """Run a file; or kill the runner at LAST of the rows, and start it again."""
    folder = rig.folder / name
    folder.mkdir()
    lines = (
        batch_line(f"row-{n}", _prompt(name, n), model=CHAT_MODEL, max_tokens=16)
        for n in range(rows)
    )
    source, output = write_lines(folder / "in.jsonl", lines), folder / "out.jsonl"
    argv = batch_command(source, "-o", output, "--quiet", "--sorted")
    stored = read_answers(rig.store).get("stored", 0)

    def done() -> int:
        return read_answers(rig.store).get("stored", 0) - stored

    runner = rig.program(argv, f"runner-{name}")
    validate = _time_until(runner, (folder / "out.run.json").exists)
    elsewhere = Elsewhere()
    looks = list(_looks(runner, done, rows))
    others = elsewhere.cores()
    resume = SpentTime(math.nan, math.nan)
    if is_killed:
        runner.signal(signal.SIGKILL)
        runner.process.wait(10)
        size = _size(output)
        runner = rig.program(argv, f"runner-{name}")
        resume = _time_until(runner, lambda: _size(output) > size)
    eventually(lambda: done() >= rows, within=3_600)
    ended = time.monotonic()
    if runner.process.wait(600):
        raise RuntimeError(runner.log.read_text()[-2_000:])
    close = time.monotonic() - ended
    megabytes = source.stat().st_size / 1e6
    for path in (source, output):
        path.unlink()
    rate, cpu_us, early, late = _pace(looks, rows)
    figures = (validate, rate, others, cpu_us, early, late, resume, close)
    return FileFigures(rows, megabytes, *figures)


def _prompt(name: str, number: int) -> str:
    return f"{name} {number} ".ljust(PROMPT_LENGTH, "x")


def _time_until(runner: Processes, is_so: Callable[[], bool]) -> SpentTime:
    began, cpu = time.monotonic(), 0.0
    while not is_so():
        cpu = runner.cpu_seconds()
        if not runner.alive or time.monotonic() - began > BEGIN_SECONDS:
            raise RuntimeError(runner.log.read_text()[-2_000:])
        time.sleep(0.02)
    return SpentTime(time.monotonic() - began, cpu)


def _size(path: Path) -> int:
    return path.stat().st_size


def _looks(runner: Processes, done: Callable[[], int], rows: int) -> Iterator[FileLook]:
    """Look at a run until LAST of its rows are answered."""
    told = moved = time.monotonic()
    before = -1
    while True:
        now, number = time.monotonic(), done()
        moved = now if number > before else moved
        before = number
        if not runner.alive or now - moved > STUCK_SECONDS:
            raise RuntimeError(f"the run stands still after {number:,} rows")
        yield FileLook(now, number, runner.rss_mb(), runner.cpu_seconds())
        if number >= LAST * rows:
            return
        if now - told > TOLD_SECONDS:
            told = now
            memory = f"{runner.rss_mb():.1f} MB"
            print(f"  {number:,} of {rows:,} rows, {memory}", flush=True)
        time.sleep(LOOK_SECONDS)


def _pace(looks: list[FileLook], rows: int) -> tuple[float, float, float, float]:
    """From FIRST to LAST: rows a second, CPU for a row, memory at both ends."""
    within = [look for look in looks if look.done >= FIRST * rows]
    if len(within) < 2:
        raise RuntimeError("too few rows to be measured; set RUN_ROWS higher")
    first, last = within[0], within[-1]
    done = last.done - first.done
    cpu_us = 1e6 * (last.cpu_seconds - first.cpu_seconds) / done
    tenth = max(1, len(within) // 8)
    early = statistics.median(look.rss_mb for look in within[:tenth])
    late = statistics.median(look.rss_mb for look in within[-tenth:])
    return done / (last.at - first.at), cpu_us, early, late
