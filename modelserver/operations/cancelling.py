"""Ends requests that nobody wants any more."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from celery import Celery

from modelserver.api import client
from modelserver.messaging.backend import revocations
from modelserver.settings import Settings
from modelserver.store import Deliveries, Keys
from modelserver.store.batch import Batch, Delivery, StoreResult
from modelserver.store.cancelling import (
    running,
    submitter_of,
    take_delayed,
    take_waiting,
)
from modelserver.store.connections import open_async
from modelserver.store.embedded import read_payload

#: The lease of what is being cancelled, in seconds; renewed with each part.
LEASE_SECONDS = 30.0
#: What callers read.
REASON = "cancelled by an operator"


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
    prefix, most = settings.fleet.redis.prefix, settings.fleet.redis.max_connections
    app = client(settings)
    own = open_async(settings.redis_url, most)
    apart = settings.results_url != settings.redis_url
    results = open_async(settings.results_url, most) if apart else None
    name = f"cancel-{uuid.uuid4().hex[:12]}"
    deliveries = Deliveries(own, Keys(prefix), name, results)

    def wanted(queue: str, message: dict[str, Any]) -> bool:
        ours = not submitter or submitter_of(message) == submitter
        return queue in models and ours and "id" in (message.get("headers") or {})

    try:
        await _renew(deliveries)
        waited = 0
        for model in models:
            taken = take_waiting(deliveries, model, submitter)
            waited += await _answer(app, deliveries, taken)
        waited += await _answer(app, deliveries, take_delayed(deliveries, wanted))
        tasks = await running(deliveries, wanted) if also_running else []
        if tasks:
            await asyncio.to_thread(app.control.revoke, tasks, terminate=True)
        return Cancelled(waited, len(tasks))
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
        for delivery in part:
            results += _results(app, delivery)
        acks = [delivery.tag for delivery in part]
        await deliveries.commit(Batch(results=results, acks=acks))
        await _renew(deliveries)
        total += len(part)
    return total


def _results(app: Celery, delivery: Delivery) -> list[StoreResult]:
    try:
        message = orjson.loads(delivery.raw)
        task, payload = message["headers"]["id"], read_payload(message)
        return revocations(app.backend, delivery.tag, task, payload, REASON)
    except (ValueError, KeyError, TypeError):
        return []  # No task sent it: nobody waits for an answer.
