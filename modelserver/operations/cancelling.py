"""Ends requests that nobody wants any more."""

import asyncio
import contextlib
import os
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from celery import Celery

from modelserver.api import client
from modelserver.errors import DeadlineExceededError
from modelserver.messaging.backend import revocations
from modelserver.messaging.bundles import (
    CANCELLED,
    answer_rows,
    read_bundle,
    write_error,
)
from modelserver.settings import Settings
from modelserver.store import Keys
from modelserver.store.batch import Batch, Delivery, GiveBack, RowAnswer, StoreResult
from modelserver.store.messages.cancelling import (
    running,
    submitter_of,
    take_delayed,
    take_waiting,
)
from modelserver.store.messages.delivery import Deliveries
from modelserver.store.messages.embedded import read_payload
from modelserver.store.server.connections import open_async

#: The lease of what is being cancelled, in seconds; renewed with each part.
LEASE_SECONDS = 30.0
#: What callers read.
REASON = "cancelled by an operator"
#: What is stored for a row of a run.
_CANCELLED = write_error(CANCELLED, "the row was cancelled before it began")


@dataclass(frozen=True, slots=True)
class Cancelled:
    """How many requests were ended."""

    #: They had waited in a queue, or for their time.
    waiting: int
    #: They were on an engine; 0 unless those were to be ended too.
    running: int


async def cancel_requests(
    settings: Settings, models: Sequence[str], submitter: str, also_running: bool
) -> Cancelled:
    """End a submitter's requests to these models, or everybody's.

    Callers get TaskRevokedError. Who cancels holds the requests as a worker does: if
    it dies, they go back to their queues.
    """
    app = client(settings)

    def wanted(queue: str, message: dict[str, Any]) -> bool:
        ours = not submitter or submitter_of(message) == submitter
        return queue in models and ours and "id" in (message.get("headers") or {})

    async with _holder(settings) as deliveries:
        waited = 0
        for model in models:
            taken = take_waiting(deliveries, model, submitter)
            waited += await _answer(app, deliveries, taken)
        waited += await _answer(app, deliveries, take_delayed(deliveries, wanted))
        tasks = await running(deliveries, wanted) if also_running else []
        if tasks:
            await asyncio.to_thread(app.control.revoke, tasks, terminate=True)
        return Cancelled(waited, len(tasks))


async def end_overdue_rows(
    settings: Settings, models: Sequence[str], submitter: str
) -> int:
    """Answer a submitter's rows whose deadline passed in a queue; returns how many.

    All others stay where they are. Workers do it for requests that are no rows.
    """
    text = "the row's deadline passed while it waited for its model"
    overdue = write_error(DeadlineExceededError.__name__, text)
    ended, stay = 0, list[GiveBack]()
    async with _holder(settings) as deliveries:
        for model in models:
            async for part in take_waiting(deliveries, model, submitter):
                rows: list[RowAnswer] = []
                acks = []
                for delivery in part:
                    bundle = read_bundle(delivery.raw)
                    if bundle and bundle.is_overdue(time.time()):
                        rows += answer_rows(bundle, delivery.tag, overdue)
                        acks.append(delivery.tag)
                    else:
                        stay.append(GiveBack(delivery.tag, delivery.source))
                await deliveries.commit(Batch(rows=rows, acks=acks))
                await _renew(deliveries)
                ended += len(rows)
        # The first one goes back last, and so is the first again.
        await deliveries.commit(Batch(returns=stay[::-1]))
    return ended


@contextlib.asynccontextmanager
async def _holder(settings: Settings) -> AsyncIterator[Deliveries]:
    """Holds messages as a worker does, for a while."""
    prefix, most = settings.fleet.redis.prefix, settings.fleet.redis.max_connections
    own = open_async(settings.redis_url, most)
    apart = settings.results_url != settings.redis_url
    results = open_async(settings.results_url, most) if apart else None
    name = f"cancel-{uuid.uuid4().hex[:12]}"
    deliveries = Deliveries(own, Keys(prefix), name, results)
    try:
        await _renew(deliveries)
        yield deliveries
    finally:
        await deliveries.leave()
        await own.aclose()
        if results:
            await results.aclose()


async def _renew(deliveries: Deliveries) -> None:
    report = {"node": deliveries.worker, "host": "", "pid": os.getpid(), "held": 0}
    await deliveries.renew(orjson.dumps({**report, "loads": {}}), LEASE_SECONDS)


async def _answer(
    app: Celery, deliveries: Deliveries, taken: AsyncIterator[list[Delivery]]
) -> int:
    total = 0
    async for part in taken:
        results: list[StoreResult] = []
        rows: list[RowAnswer] = []
        for delivery in part:
            if bundle := read_bundle(delivery.raw):
                rows += answer_rows(bundle, delivery.tag, _CANCELLED)
            else:
                results += _results(app, delivery)
        acks = [delivery.tag for delivery in part]
        await deliveries.commit(Batch(results=results, rows=rows, acks=acks))
        await _renew(deliveries)
        total += sum(delivery.rows for delivery in part)
    return total


def _results(app: Celery, delivery: Delivery) -> list[StoreResult]:
    try:
        message = orjson.loads(delivery.raw)
        task, payload = message["headers"]["id"], read_payload(message)
        return revocations(app.backend, delivery.tag, task, payload, REASON)
    except (ValueError, KeyError, TypeError):
        return []  # No task sent it: nobody waits for an answer.
