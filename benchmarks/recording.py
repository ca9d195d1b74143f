"""What it costs to record a request: the worker's CPU time, and the server's time."""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import redis
from redis import asyncio as aioredis

from benchmarks.machine import Elsewhere, Server
from benchmarks.queue_depth import _copies, _push, _template
from benchmarks.report import Goal, Report
from benchmarks.rig import CHAT_MODEL, Rig
from benchmarks.steady import Steady, steady
from modelserver.store.batch import Delivery
from modelserver.store.fleet.measurements import read_all_samples
from modelserver.store.fleet.workers import read_answers
from modelserver.store.keys import Keys
from modelserver.store.messages.delivery import Deliveries
from modelserver.values import EngineReport, EngineState
from workers.delivery.courier import Courier
from workers.delivery.server_clock import ServerClock
from workers.engines.engine_slot import EngineSlot
from workers.requests.attempt import Attempt

#: Requests that one round trip carries: a quiet worker, one at work, a full one.
TOGETHER = (1, 8, 32)
#: Requests that are recorded in each measurement.
REQUESTS = 8_000
REPEATS = 5
# A whole run, as in the benchmark of events.
#: Requests that the worker has in flight.
IN_FLIGHT = 512
#: How long the engine takes for each, in seconds.
ENGINE_SECONDS = 0.2
#: Tasks in the queue before the worker starts.
TASKS = 8_000
#: How long a run is measured, in seconds.
WINDOW_SECONDS = 3.0
ROUNDS = 5
#: A worker as ``celery`` starts it, except that it drops its samples.
UNRECORDED = """\
from celery.__main__ import main
from workers.delivery.courier import Courier
Courier.record = lambda self, sample: None
main()
"""
#: The most that it may cost the worker, in microseconds: a tenth of a whole request.
WORKER_MOST = 31.0
#: The most that it may cost the server, in microseconds: two scripts for each request.
SERVER_MOST = 30.0


def recording() -> Report:
    """CPU time of a worker to record a request, and the server's time to keep it.

    Alone: attempts leave samples, and batches carry acknowledgements to a real server,
    with samples and without; the difference is what samples cost. Whole: a worker
    with 512 in flight, and the same with samples dropped; they take turns.
    """
    attempt = statistics.median(_attempt_alone() for _ in range(REPEATS))
    rows: list[tuple[Any, ...]] = [("an attempt and its sample", attempt, "-", "-")]
    totals = {}
    for together in TOGETHER:
        worker, server = _carried(together)
        totals[together] = attempt + worker, server
        rows.append((f"packed and sent, {together} at once", worker, server, "-"))
    elsewhere = Elsewhere()
    runs: dict[str, list[Steady]] = defaultdict(list)
    for _ in range(ROUNDS):
        for name in ("recorded", "dropped"):
            runs[name].append(_whole(name == "recorded"))
    for name, figures in runs.items():
        cpu = [1000 * run.cpu_ms for run in figures]
        spread = f"{min(cpu):.0f}-{max(cpu):.0f}"
        rows.append((f"a whole request, {name}", statistics.median(cpu), "-", spread))
    worker, server = totals[TOGETHER[1]]
    return Report(
        ("part", "worker us", "server us", "spread us"),
        tuple(rows),
        (
            Goal("recording worker CPU a request", worker, WORKER_MOST, "us", True),
            Goal("recording server time a request", server, SERVER_MOST, "us", True),
        ),
        (
            f"goals: {TOGETHER[1]} at once, attempt and sample included",
            f"others used {elsewhere.cores():.1f} cores during the whole runs",
        ),
    )


def _slot() -> EngineSlot:
    engine = EngineReport(
        "m-0", "m", "h", EngineState.READY, 1, url="http://h", limit=64
    )
    return EngineSlot(engine, seen_at=0.0)


def _attempt_alone() -> float:
    """Microseconds of CPU for an attempt that does nothing but leave its sample."""
    slot = _slot()
    kept: list[object] = []
    began = time.process_time()
    for _ in range(REQUESTS):
        with Attempt(slot, kept.append, ServerClock()) as attempt:
            attempt.admit(60, 24)
    spent = time.process_time() - began
    if len(kept) != REQUESTS:
        raise RuntimeError(f"{REQUESTS} attempts left {len(kept)} samples")
    return 1e6 * spent / REQUESTS


def _carried(together: int) -> tuple[float, float]:
    """Microseconds a sample: the worker's to send it, the server's to keep it."""
    with tempfile.TemporaryDirectory(prefix="modelserver-bench-") as folder:
        server = Server(Path(folder)).start()
        try:
            pairs = [
                asyncio.run(_carry_all(server.url, together)) for _ in range(REPEATS)
            ]
        finally:
            server.stop()
    workers, servers = zip(*pairs, strict=True)
    return statistics.median(workers), statistics.median(servers)


async def _carry_all(url: str, together: int) -> tuple[float, float]:
    client = aioredis.Redis.from_url(url)
    try:
        bare, _ = await _carry(client, together, sampled=False)
        with_samples, server = await _carry(client, together, sampled=True)
    finally:
        await client.aclose()
    return with_samples - bare, server


async def _carry(
    client: aioredis.Redis, together: int, sampled: bool
) -> tuple[float, float]:
    """Microseconds a request of this process, and of the server's scripts."""
    slot, samples = _slot(), []
    for _ in range(REQUESTS):
        with Attempt(slot, samples.append, ServerClock()) as attempt:
            attempt.admit(60, 24)
    courier = Courier(Deliveries(client, Keys("bench:"), "w"))
    tags = [f"tag {place}" for place in range(REQUESTS)]
    for tag in tags:
        courier.took("queue", Delivery(tag, "queue", b""))
    await client.config_resetstat()
    began = time.process_time()
    for start in range(0, REQUESTS, together):
        # An acknowledgement each, which goes the same way.
        for tag in tags[start : start + together]:
            courier.ack(tag)
        if sampled:
            for sample in samples[start : start + together]:
                courier.record(sample)
        await courier.flush()
    spent = time.process_time() - began
    scripts = (await client.info("commandstats")).get("cmdstat_eval", {"usec": 0})
    return 1e6 * spent / REQUESTS, scripts["usec"] / REQUESTS


def _whole(recorded: bool) -> Steady:
    with Rig("--latency", str(ENGINE_SECONDS), limit=IN_FLIGHT) as rig:
        client = redis.Redis.from_url(rig.server.url)
        rig.keep(client.close)
        messages = _copies(_template(rig, client))
        _push(client, rig.store.keys.queue(CHAT_MODEL)[0], messages, TASKS)
        start = ["-m", "celery"] if recorded else ["-c", UNRECORDED]
        argv = [sys.executable, *start, "-A", "tasks", "worker", "-n", "w@rig"]
        worker = rig.program(argv, "worker", PYTHONPATH=os.getcwd())
        run = steady(
            worker,
            rig.server,
            lambda: read_answers(rig.store).get("stored", 0),
            2 * IN_FLIGHT,
            TASKS - IN_FLIGHT,
            WINDOW_SECONDS,
        )
        kept = read_all_samples(rig.store, [f"{CHAT_MODEL}-0"])[f"{CHAT_MODEL}-0"]
        if bool(kept) != recorded:
            raise RuntimeError(f"{len(kept)} samples are kept, recorded is {recorded}")
        return run
