"""Reading back many answers that a program holds and did not wait for."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import orjson
from celery import Celery
from celery.result import ResultSet
from kombu.utils.uuid import uuid

from benchmarks.rig import Rig

#: Answers that are held; a million with MODELSERVER_BENCH_HELD=1000000, in minutes.
HELD = int(os.environ.get("MODELSERVER_BENCH_HELD", "50000"))
#: Keys in one command.
BLOCK = 1_000
#: The text of an answer, about as long as in a bulk job.
TEXT = "the mug stands on the shelf, and it is clean; " * 10


def read_held(rig: Rig) -> dict[str, float]:
    """Answers per second: by plain commands, then by Celery's results, all at once.

    The answers are written as a worker writes them; what is measured is a client.
    """
    app = rig.client()
    ids = [uuid() for _ in range(HELD)]
    keys = [app.backend.backend_key(task) for task in ids]
    _answer(rig, ids, keys)
    results = [app.AsyncResult(task) for task in ids]
    return {
        f"{HELD:,} read as keys": _rate(lambda: _read_keys(app, keys)),
        f"{HELD:,} read by ResultSet.get": _rate(lambda: _read_set(results)),
    }


def channels(app: Celery) -> int:
    """The results that this server's clients are subscribed to."""
    return len(app.backend.client.pubsub_channels("*celery-task-meta-*"))


def _rate(read: Callable[[], None]) -> float:
    began = time.monotonic()
    read()
    return HELD / (time.monotonic() - began)


def _answer(rig: Rig, ids: Sequence[str], keys: Sequence[str]) -> None:
    pairs = zip(ids, keys, strict=True)
    while block := list(islice(pairs, BLOCK)):
        with rig.store.client.pipeline(transaction=False) as pipe:
            for task, key in block:
                pipe.set(key, _meta(task), ex=86_400)
            pipe.execute()


def _meta(task: str) -> bytes:
    return orjson.dumps(
        {
            "status": "SUCCESS",
            "result": TEXT,
            "traceback": None,
            "children": [],
            "date_done": "2026-01-01T00:00:00+00:00",
            "task_id": task,
        }
    )


def _read_keys(app: Celery, keys: Sequence[str]) -> None:
    for block in _blocks(keys):
        values = app.backend.client.mget(block)
        if not all(orjson.loads(value)["result"] for value in values):
            raise RuntimeError("an answer is empty")


def _blocks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[start : start + BLOCK] for start in range(0, len(keys), BLOCK))


def _read_set(results: list[object]) -> None:
    if len(ResultSet(results).get(timeout=600)) != HELD:
        raise RuntimeError("answers are missing")
