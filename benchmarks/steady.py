"""Measuring a worker at work while there is enough to do."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.machine import Processes
from tests.support.processes import eventually

#: How long a worker may take until its first task is done, in seconds.
START_SECONDS = 30.0
#: A worker is warm after this time, in seconds, however little it has done.
WARM_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Steady:
    """Tasks per second, CPU time of the worker per task, its memory at the end."""

    rate: float
    cpu_ms: float
    rss_mb: float


def steady(
    worker: Processes,
    done: Callable[[], int],
    first: int,
    last: int,
    seconds: float,
) -> Steady:
    """Measure from ``first`` tasks done until ``last`` are, or ``seconds`` have passed.

    ``done`` tells how many are done by now.
    """
    eventually(lambda: done() > 0, START_SECONDS)
    warm = time.monotonic() + WARM_SECONDS
    while done() < first and time.monotonic() < warm:
        time.sleep(0.02)
    before, cpu, began = done(), worker.cpu_seconds(), time.monotonic()
    while done() < last and time.monotonic() - began < seconds:
        time.sleep(0.02)
    number, took = done() - before, time.monotonic() - began
    spent = worker.cpu_seconds() - cpu
    return Steady(number / took, 1000 * spent / max(number, 1), worker.rss_mb())
