"""Whether a long queue makes the worker slower, and what a queued request costs."""

import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import redis

from benchmarks.machine import Processes
from benchmarks.report import Goal, Report
from benchmarks.rig import CHAT_MODEL, Rig
from benchmarks.steady import steady
from modelserver.store.fleet.workers import read_answers, read_backlog

#: Messages in a short queue.
SHALLOW = 1_000
#: Messages in a long queue.
DEEP = 1_000_000
#: Windows measured at each depth.
WINDOWS = 3
#: Length of a window, in seconds.
WINDOW_SECONDS = 3.0
#: Messages in one round trip.
PIPELINE = 1_000


def queue_depth() -> Report:
    """Throughput with 1,000 and with 1,000,000 requests queued, and bytes for each.

    Copies of one prepared message, each with an id of its own, are pushed by pipelined
    LPUSH: ``.delay`` would take a quarter of an hour. The shallow queue is filled up
    while it is worked off, from this process; it is measured before the deep one and
    after it.
    """
    with Rig("--latency", "0.2", limit=256) as rig:
        client = redis.Redis.from_url(rig.server.url)
        rig.keep(client.close)
        messages = _copies(_template(rig, client))
        worker = rig.worker()
        queue = rig.store.keys.queue(CHAT_MODEL)[0]

        def push(number: int) -> None:
            _push(client, queue, messages, number)

        shallow = _shallow(rig, worker, push)
        size, memory = read_backlog(rig.store, CHAT_MODEL), _memory(client)
        push(DEEP)
        queued = read_backlog(rig.store, CHAT_MODEL) - size
        bytes_each = (_memory(client) - memory) / queued
        deep = [_window(rig, worker) for _ in range(WINDOWS)]
        client.delete(queue)
        shallow += _shallow(rig, worker, push)
    ratio = statistics.median(deep) / statistics.median(shallow)
    rows = [(name, *_spread(rates)) for name, rates in _named(shallow, deep)]
    return Report(
        ("queued", "tasks/s", "least", "most"),
        tuple(rows),
        (Goal("throughput deep over shallow", ratio, 0.95),),
        (f"server's memory for each queued request: {bytes_each:.0f} bytes",),
    )


def _named(shallow: list[float], deep: list[float]) -> list[tuple[str, list[float]]]:
    return [(f"{SHALLOW:,}", shallow), (f"{DEEP:,}", deep)]


def _spread(rates: list[float]) -> tuple[float, float, float]:
    return statistics.median(rates), min(rates), max(rates)


def _template(rig: Rig, client: redis.Redis) -> list[bytes]:
    """One message of ``.delay``, cut wherever its id stands; no worker runs yet."""
    sent = rig.client().modelserver_tasks[0].delay("where is the mug?", max_tokens=64)
    queue = rig.store.keys.queue(CHAT_MODEL)[0]
    raw: Any = client.rpop(queue)
    return list(raw.split(sent.id.encode()))


def _copies(template: list[bytes]) -> Iterator[bytes]:
    """Endless copies of a message, each with its own id."""
    while True:
        yield str(uuid.uuid4()).encode().join(template)


def _push(
    client: redis.Redis, queue: str, messages: Iterator[bytes], number: int
) -> None:
    while number > 0:
        client.lpush(queue, *islice(messages, min(number, PIPELINE)))
        number -= PIPELINE


def _memory(client: redis.Redis) -> int:
    return int(client.info("memory")["used_memory"])


def _window(
    rig: Rig, worker: Processes, feed: Callable[[], None] = lambda: None
) -> float:
    def done() -> int:
        feed()
        return read_answers(rig.store).get("stored", 0)

    before = done()
    last = before + 1_000_000
    return steady(worker, rig.server, done, before + 512, last, WINDOW_SECONDS).rate


def _shallow(rig: Rig, worker: Processes, push: Callable[[int], None]) -> list[float]:
    def feed() -> None:
        missing = SHALLOW - read_backlog(rig.store, CHAT_MODEL)
        if missing > 100:
            push(missing)

    rates = [_window(rig, worker, feed) for _ in range(WINDOWS)]
    time.sleep(2.0)
    return rates
