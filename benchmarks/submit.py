"""How fast one process submits requests and reads their answers."""

import statistics
import time

from celery import Celery
from celery.result import AsyncResult

from benchmarks.held import channels, read_held
from benchmarks.machine import Elsewhere
from benchmarks.report import Goal, Report
from benchmarks.rig import CHAT_MODEL, Rig
from modelserver.store.fleet.workers import read_answers, read_backlog
from tests.support.processes import eventually

REQUESTS = 2_000
ROUNDS = 3
BATCH = 500
SAMPLING = {"max_tokens": 16}


def submit() -> Report:
    """Requests per second by .delay and in batches, and answers read by .get().

    One process; no worker runs while it submits. Then one works everything off, and
    reading is measured once all answers are stored. A batch is a producer's: kombu
    sends the messages of up to 500 calls in one round trip.
    """
    others = Elsewhere()
    with Rig("--latency", "0.01", limit=512) as rig:
        figures = _measure(rig)
        held = read_held(rig)
    rows = [
        (name, statistics.median(rates), min(rates), max(rates))
        for name, rates in figures.items()
    ]
    rows += [(name, rate, rate, rate) for name, rate in held.items()]
    single, batched = rows[0][1], rows[1][1]
    as_keys, as_results = held.values()
    return Report(
        ("way", "per s", "least", "most"),
        tuple(rows),
        (
            Goal("submit .delay/s", single, 1000),
            Goal("submit batches over .delay", batched / single, 1.2),
            Goal("submit held over keys", as_results / as_keys, 0.15),
        ),
        (f"others used {others.cores():.1f} cores meanwhile",),
    )


def _measure(rig: Rig) -> dict[str, list[float]]:
    """Requests per second by way, one figure for each round."""
    figures: dict[str, list[float]] = {".delay": [], "in batches": [], ".get": []}
    ways = {".delay": _delay, "in batches": _in_batches}
    app = rig.client()
    sent: list[AsyncResult] = []
    for _ in range(ROUNDS):
        for name, way in ways.items():
            began = time.monotonic()
            sent += way(app)
            figures[name].append(REQUESTS / (time.monotonic() - began))
    if read_backlog(rig.store, CHAT_MODEL) != len(sent):
        raise RuntimeError("not every request is in its queue")
    if channels(app):
        raise RuntimeError("a result is subscribed to that nobody waits for")
    rig.worker()
    eventually(lambda: read_answers(rig.store).get("stored", 0) >= len(sent), 120)
    for place in range(ROUNDS):
        part = sent[place * REQUESTS : (place + 1) * REQUESTS]
        began = time.monotonic()
        _read(part)
        figures[".get"].append(REQUESTS / (time.monotonic() - began))
    return figures


def _prompt(place: int) -> str:
    return f"request {place}: where does the mug stand, and is it clean?"


def _delay(app: Celery) -> list[AsyncResult]:
    complete = app.modelserver_tasks[0]
    return [complete.delay(_prompt(place), **SAMPLING) for place in range(REQUESTS)]


def _in_batches(app: Celery) -> list[AsyncResult]:
    complete = app.modelserver_tasks[0]
    with app.producer_or_acquire() as producer, producer.batch(BATCH):
        return [
            complete.apply_async((_prompt(place),), SAMPLING, producer=producer)
            for place in range(REQUESTS)
        ]


def _read(sent: list[AsyncResult]) -> None:
    if not all(result.get(timeout=30) for result in sent):
        raise RuntimeError("an answer is empty")
