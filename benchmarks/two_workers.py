"""Two workers of one host beside one: throughput, and whether limits hold."""

import itertools
import os
import signal
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from benchmarks.machine import Elsewhere, Processes
from benchmarks.report import Goal, Report
from benchmarks.rig import Rig
from modelserver.messaging.wire import COMPLETE
from modelserver.runs.lane import Lane
from modelserver.runs.rows import Row
from modelserver.store.fleet.workers import read_answers
from tests.engine.process import EngineProcess
from tests.support.processes import eventually

ROUNDS = 3
#: From so many cores on, each worker and each engine has cores to itself.
PINNED_CORES = 4
#: Most engines of the throughput part, all of which the workers ask.
MOST_ENGINES = 6
#: Requests in flight on all engines together.
IN_FLIGHT = 1_024
#: How long these engines take for a request, in seconds.
ENGINE_SECONDS = 0.1
#: Requests in the queue before the workers start.
REQUESTS = 16_000
#: The longest that the workers are measured, in seconds.
WINDOW_SECONDS = 4.0
#: How long the workers may take until they are at work, in seconds.
START_SECONDS = 120.0

#: What the one engine takes at once whose use is measured, and how long it takes.
USED_LIMIT, USED_SECONDS = 31, 0.5
#: How often it is asked what it has, and the seconds from one time to the next.
USE_SAMPLES, USE_PAUSE_SECONDS = 200, 0.05

#: What the engine takes at once whose workers are killed, and how long it takes.
KILLED_LIMIT, KILLED_SECONDS = 13, 0.1
#: How often it is asked what it has, and after how many times a worker is killed and
#: another is started.
KILL_SAMPLES, SAMPLES_A_KILL = 1_000, 200
#: The seconds from one time to the next.
KILL_PAUSE_SECONDS = 0.03


@dataclass(frozen=True, slots=True)
class Figures:
    """One run with so many workers."""

    rate: float
    #: CPU time of all workers for a request, in milliseconds.
    cpu_ms: float
    #: Cores that others used meanwhile.
    others: float


def two_workers() -> Report:
    """One worker and two on the same engines, in turns; one run; workers killed.

    The engines of the first part take more than the workers give them. From four cores
    on each worker has one to itself, and engines, server and client have the others.
    """
    runs: dict[int, list[Figures]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for number, figures in runs.items():
            figures.append(_throughput(number))
            print(f"  {number} workers: {figures[-1]}", flush=True)
    used = {number: _use(number) for number in runs}
    most, kills = _killed()
    ratios = [two.rate / one.rate for one, two in zip(runs[1], runs[2], strict=True)]
    ratio, cores = statistics.median(ratios), len(os.sched_getaffinity(0))
    goals = [
        Goal("two-workers use of a limit by one run", used[2], 0.95),
        Goal("two-workers most in flight over the limit", most, 1.0, at_most=True),
    ]
    if cores >= PINNED_CORES:
        goals.insert(0, Goal("two-workers over one", ratio, 1.8))
    return Report(
        ("workers", "requests/s", "least", "most", "CPU ms", "others", "limit used"),
        tuple(_row(number, figures, used[number]) for number, figures in runs.items()),
        tuple(goals),
        (
            f"two over one: {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) on "
            f"{cores} cores",
            f"{KILL_SAMPLES} looks, {kills} workers killed and as many started: "
            f"at most {most:.2f} of the limit of {KILLED_LIMIT} in flight",
        ),
    )


def _row(number: int, figures: list[Figures], used: float) -> tuple[int | float, ...]:
    rates = [each.rate for each in figures]
    cpu, others = (
        statistics.median(getattr(each, field) for each in figures)
        for field in ("cpu_ms", "others")
    )
    middle = statistics.median(rates)
    return number, middle, min(rates), max(rates), cpu, others, used


def _throughput(number: int) -> Figures:
    cores = sorted(os.sched_getaffinity(0))
    engines = max(1, min(MOST_ENGINES, len(cores) - 3))
    options = ("--latency", str(ENGINE_SECONDS))
    with Rig(*options, engines=engines, limit=IN_FLIGHT // engines) as rig:
        if len(cores) >= PINNED_CORES:
            for engine in rig.engines:
                psutil.Process(engine.pid).cpu_affinity(cores[2:])
        complete = rig.client().modelserver_tasks[0]
        with complete.app.producer_or_acquire() as producer:
            for place in range(REQUESTS):
                complete.apply_async((f"request {place}",), producer=producer)
        elsewhere = Elsewhere()
        workers = list(_start(rig, number, cores))
        rate, cpu_ms = _steady(rig, workers)
        return Figures(rate, cpu_ms, elsewhere.cores())


def _start(rig: Rig, number: int, cores: list[int]) -> Iterator[Processes]:
    for rank in range(number):
        worker = rig.worker(wait=False)
        if len(cores) >= PINNED_CORES:
            # Before it has threads, which inherit it.
            psutil.Process(worker.pid).cpu_affinity([cores[rank]])
        yield worker


def _start_all(rig: Rig, number: int) -> list[Processes]:
    """Workers that hold their leases."""
    workers = [rig.worker(wait=False) for _ in range(number)]
    eventually(lambda: all(map(rig.name_of, workers)), START_SECONDS)
    return workers


def _steady(rig: Rig, workers: list[Processes]) -> tuple[float, float]:
    """Requests a second, and milliseconds of the workers' CPU time for each."""

    def done() -> int:
        return read_answers(rig.store).get("stored", 0)

    def all_work() -> bool:
        return all(rig.name_of(worker) for worker in workers) and done() > IN_FLIGHT

    eventually(all_work, START_SECONDS)
    before, began = done(), time.monotonic()
    spent = sum(worker.cpu_seconds() for worker in workers)
    while done() < REQUESTS - IN_FLIGHT and time.monotonic() - began < WINDOW_SECONDS:
        time.sleep(0.05)
    number, seconds = done() - before, time.monotonic() - began
    spent = sum(worker.cpu_seconds() for worker in workers) - spent
    return number / seconds, 1e3 * spent / max(number, 1)


def _use(number: int) -> float:
    """How much of an engine's limit one run uses, on average."""
    with Rig("--latency", str(USED_SECONDS), limit=USED_LIMIT) as rig:
        _start_all(rig, number)
        engine = rig.engines[0]
        _send_rows(rig, 3_000)
        eventually(lambda: _running(engine) >= USED_LIMIT, START_SECONDS)
        seen = []
        for _ in range(USE_SAMPLES):
            seen.append(_running(engine))
            time.sleep(USE_PAUSE_SECONDS)
        return statistics.mean(seen) / USED_LIMIT


def _killed() -> tuple[float, int]:
    """Most in flight, as a part of the limit, while workers die; how many died."""
    with Rig("--latency", str(KILLED_SECONDS), limit=KILLED_LIMIT) as rig:
        living = _start_all(rig, 2)
        engine, kills = rig.engines[0], 0
        _send_rows(rig, 20_000)
        eventually(lambda: _running(engine) >= KILLED_LIMIT, START_SECONDS)
        most = 0
        for place in itertools.count(1):
            most = max(most, _running(engine))
            if place >= KILL_SAMPLES:
                break
            if place % SAMPLES_A_KILL == 0:
                living.pop(0).signal(signal.SIGKILL)
                living.append(rig.worker(wait=False))
                kills += 1
            time.sleep(KILL_PAUSE_SECONDS)
        # By its own account of all moments, not only of those that were looked at.
        most = max(most, engine.stats()["most_in_flight"])
        return most / KILLED_LIMIT, kills


def _send_rows(rig: Rig, number: int) -> None:
    parameters = {"max_tokens": 8}
    rows = [Row(n, COMPLETE, f"row {n}", parameters) for n in range(number)]
    Lane(rig.client(), "two-workers").send(rows)


def _running(engine: EngineProcess) -> int:
    stats = engine.stats()
    ended = stats["completed"] + stats["refused"] + stats["aborted"]
    return int(stats["received"] - ended)
