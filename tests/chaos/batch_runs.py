"""Runs of files, where everything under them is killed in turn."""

import os
import random
import signal
import sys
import time
from collections import Counter

from benchmarks.machine import Processes
from benchmarks.report import Goal, Report
from benchmarks.rig import CHAT_MODEL, Rig
from modelserver.store.runs.hosted import open_ids, read_hosted
from modelserver.values import EngineState
from tests.support.batch_files import batch_command, batch_line, names, write_lines
from tests.support.processes import eventually

#: Runs; each has a file, and everything of its own.
RUNS = int(os.environ.get("RUNS", "30"))
#: Rows of a file.
ROWS = 2_000
#: Submitted runs, of as many rows.
HOSTED_RUNS = min(RUNS, 3)
#: What is killed, in this order, each when one share more of the rows is answered.
VICTIMS = ("runner", "worker", "engine", "server", "runner", "worker")
#: How long a run may take from its last kill, in seconds.
LAST_SECONDS = 180.0


class RunGround:
    """One run of a file on a rig of its own, begun again as often as it is killed."""

    runner: Processes

    def __init__(self, rig: Rig, number: int) -> None:
        self.rig = rig
        self.number = number
        self.starts = 0
        #: Executions of a prompt when its answer was seen in the output.
        self.seen: dict[str, int] = {}
        lines = (
            batch_line(f"row-{n}", self.prompt(f"row-{n}"), model=CHAT_MODEL)
            for n in range(ROWS)
        )
        self.source = write_lines(self.rig.folder / "in.jsonl", lines)
        self.output = self.rig.folder / "out.jsonl"
        self.worker = self.rig.worker()
        self.rig.worker()
        self.start()

    def prompt(self, name: str) -> str:
        """What a row asks."""
        return f"run {self.number} {name}"

    def start(self) -> None:
        """Start the command, the same each time."""
        self.starts += 1
        argv = batch_command(self.source, "-o", self.output, "--json")
        self.runner = self.rig.program(argv, f"runner-{self.starts}")

    def kill(self, victim: str) -> None:
        """Kill one of the parts, and start it again."""
        if victim == "runner":
            self.runner.signal(signal.SIGKILL)
            self.runner.process.wait(10)
            self.look()
            self.start()
        elif victim == "worker":
            self.worker.signal(signal.SIGKILL)
            self.worker = self.rig.worker(wait=False)
        elif victim == "engine":
            number = len(self.rig.engines) - 1
            self.rig.engines[number].kill()
            self.rig.report(number, EngineState.BACKOFF)
            self.rig.add_engine("--latency", "0.3")
        else:
            self.rig.server.stop()
            time.sleep(1.0)
            self.rig.server.start()

    def look(self) -> None:
        """Note how often each row that stands in the output was executed so far."""
        executed = self.rig.executed()
        for name in self.answers():
            self.seen.setdefault(name, executed.get(self.prompt(name), 0))

    def asked_again(self) -> int:
        """Rows that were executed again after they stood in the output."""
        executed = self.rig.executed()
        return sum(
            executed.get(self.prompt(name), 0) > times
            for name, times in self.seen.items()
        )

    def answers(self) -> Counter[str]:
        """How often each row stands in the output; a torn end does not count."""
        try:
            return names(self.output)
        except ValueError:
            return Counter()

    def finish(self) -> int:
        """Wait for its end, and start it until it ends well; returns its status."""
        for _ in range(3):
            if self.runner.process.wait(LAST_SECONDS) == 0:
                break
            self.start()
        return self.runner.process.wait(LAST_SECONDS)


class HostedGround(RunGround):
    """A submitted run; of the two processes that may carry it out one is killed."""

    run = ""

    def start(self) -> None:
        """Submit it, and start one process more, or two at first."""
        command = [sys.executable, "-m", "modelserver.cli"]
        if not self.run:
            argv = [*command, "batch", "submit", self.source, "-o", self.output]
            submit = self.rig.program(map(str, argv), "submit")
            assert submit.process.wait(LAST_SECONDS) == 0
            (self.run,) = open_ids(self.rig.store)
            self.holders: list[Processes] = []
        while sum(each.alive for each in self.holders) < 2:
            self.starts += 1
            name = f"holder-{self.starts}"
            self.holders.append(self.rig.program([*command, "batches"], name))

    def kill(self, victim: str) -> None:
        """Kill one of the parts; the runner is whoever holds the run."""
        if victim == "runner":
            self.runner = eventually(self._holder)
        super().kill(victim)

    def _holder(self) -> Processes | None:
        (found,) = read_hosted(self.rig.store, [self.run])
        pid = found.holder.rpartition("-")[2]
        is_held = found.is_held(self.rig.store.now())
        holders = (each for each in self.holders if str(each.pid) == pid)
        return next(holders, None) if is_held else None

    def finish(self) -> int:
        """Wait for its end; returns what ``batch watch`` exits with."""
        argv = [sys.executable, "-m", "modelserver.cli", "batch", "watch", self.run]
        watch = self.rig.program(argv, f"watch-{self.number}")
        return watch.process.wait(LAST_SECONDS)


def hosted_killed() -> Report:
    """The same of submitted runs: the process that holds the run is killed."""
    return _report([_killed_run(number, HostedGround) for number in range(HOSTED_RUNS)])


def runs_killed() -> Report:
    """Runs of 2,000 rows; runner, worker, engine and server are killed in turn.

    After each kill of the runner the same command is started again. An engine that is
    killed loses its account of what it executed: counted is what others executed.
    """
    return _report([_killed_run(number, RunGround) for number in range(RUNS)])


def _report(rows: list[tuple[float, ...]]) -> Report:
    columns = ("run", "answered", "lost", "twice", "asked again", "status", "seconds")
    _, _, lost, twice, again, status, _ = map(sum, zip(*rows, strict=True))
    goals = (
        Goal("rows lost", lost, 0, at_most=True),
        Goal("rows twice in the output", twice, 0, at_most=True),
        Goal("asked again after they were written", again, 0, at_most=True),
        Goal("runs that did not end well", status, 0, at_most=True),
    )
    note = f"killed in turn: {', '.join(VICTIMS)}"
    return Report(columns, tuple(rows), goals, (note,))


def _killed_run(number: int, kind: type[RunGround]) -> tuple[float, ...]:
    options, began = {"appendonly": "yes", "appendfsync": "always"}, time.monotonic()
    engine = ("--latency", "0.3")
    with Rig(*engine, engines=2, limit=32, server_options=options) as rig:
        ground = kind(rig, number)
        for place, victim in enumerate(VICTIMS):
            share = (place + random.uniform(0.3, 1.0)) / (len(VICTIMS) + 1)
            wanted = int(share * ROWS)
            eventually(lambda n=wanted: len(ground.answers()) >= n, within=120)
            ground.kill(victim)
        status, found = ground.finish(), ground.answers()
        lost, again = ROWS - len(found), ground.asked_again()
        twice = sum(times > 1 for times in found.values())
    seconds = round(time.monotonic() - began, 1)
    return number + 1, len(found), lost, twice, again, status, seconds
