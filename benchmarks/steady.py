"""Measuring a worker at work while there is enough to do."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.machine import Processes, Server
from tests.support.processes import eventually

#: How long a worker may take until its first task is done, in seconds.
START_SECONDS = 30.0
#: A worker is warm after this time, in seconds, however little it has done.
WARM_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Steady:
    """Tasks per second, CPU time of worker and server per task, memory at the end."""

    rate: float
    cpu_ms: float
    rss_mb: float
    server_us: float


def steady(
    worker: Processes,
    server: Server,
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
    served = server.cpu_seconds()
    while done() < last and time.monotonic() - began < seconds:
        time.sleep(0.02)
    number, took = done() - before, time.monotonic() - began
    spent, served = worker.cpu_seconds() - cpu, server.cpu_seconds() - served
    return Steady(
        rate=number / took,
        cpu_ms=1e3 * spent / max(number, 1),
        rss_mb=worker.rss_mb(),
        server_us=1e6 * served / max(number, 1),
    )
