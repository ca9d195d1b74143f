"""Single texts to embed, against a bare client with singles and with ideal batches."""

import asyncio
import statistics
import time
from typing import Any

import redis

from benchmarks.machine import Elsewhere
from benchmarks.report import Goal, Report
from benchmarks.rig import EMBED_MODEL, Rig
from benchmarks.steady import Steady, steady
from modelserver.client import EMBEDDINGS, ask, open_session

TEXTS = 5_000
IN_FLIGHT = 256
IDEAL_BATCH = 32
ROUNDS = 3
WINDOW_SECONDS = 4.0
ENGINE_SECONDS = 0.05


def embeddings() -> Report:
    """One text per task against an engine of 50 ms, whatever the size of a request.

    The queue is filled first. The bare asyncio client sends the same texts as singles
    with as many in flight, and in batches of 32 with eight in flight: what would be
    ideal if one knew all the texts beforehand. All take turns.
    """
    ours, singles, batches = [], [], []
    elsewhere = Elsewhere()
    for _ in range(ROUNDS):
        ours.append(_ours())
        singles.append(_bare(1, IN_FLIGHT))
        batches.append(_bare(IDEAL_BATCH, IN_FLIGHT // IDEAL_BATCH))
    rate = statistics.median(one.rate for one in ours)
    cpu = statistics.median(one.cpu_ms for one in ours)
    single, batch = statistics.median(singles), statistics.median(batches)
    return Report(
        ("way", "texts/s", "least", "most", "CPU ms/text"),
        (
            ("modelserver", rate, *_spread([one.rate for one in ours]), cpu),
            ("bare, singles", single, *_spread(singles), ""),
            (f"bare, batches of {IDEAL_BATCH}", batch, *_spread(batches), ""),
        ),
        (
            Goal("embeddings texts/s", rate, 1000),
            Goal("embeddings over bare singles", rate / single, 0.9),
            Goal("embeddings over ideal batches", rate / batch, 0.4),
        ),
        (f"others used {elsewhere.cores():.1f} cores meanwhile",),
    )


def _spread(rates: list[float]) -> tuple[float, float]:
    return min(rates), max(rates)


def _text(place: int) -> str:
    return f"text {place}: a clean mug stands on the countertop beside the sink"


def _ours() -> Steady:
    with Rig("--latency", str(ENGINE_SECONDS), limit=IN_FLIGHT) as rig:
        return _embed(rig)


def _embed(rig: Rig) -> Steady:
    embed = rig.client().modelserver_tasks[2]
    first = embed.delay(_text(0))
    for place in range(1, TEXTS):
        embed.delay(_text(place))
    with redis.Redis.from_url(rig.server.url) as client:
        before = int(client.dbsize())
        figures = steady(
            rig.worker(wait=False),
            lambda: int(client.dbsize()) - before,
            2 * IN_FLIGHT,
            TEXTS - IN_FLIGHT,
            WINDOW_SECONDS,
        )
    vector = first.get(timeout=30)
    if not (isinstance(vector, list) and isinstance(vector[0], float)):
        raise RuntimeError(f"no vector came back but {vector!r}")
    return figures


def _bare(batch: int, in_flight: int) -> float:
    with Rig("--latency", str(ENGINE_SECONDS)) as rig:
        url = rig.engines[0].url + EMBEDDINGS
        return asyncio.run(_send(url, batch, in_flight))


async def _send(url: str, batch: int, in_flight: int) -> float:
    """Texts per second."""
    gate = asyncio.Semaphore(in_flight)

    async def one(start: int) -> int:
        texts = [_text(place) for place in range(start, min(TEXTS, start + batch))]
        body: dict[str, Any] = {"model": EMBED_MODEL, "input": texts}
        async with gate:
            answer = await ask(session, url, body | {"encoding_format": "base64"})
        return len(answer["data"])

    async with open_session() as session:
        began = time.monotonic()
        counts = await asyncio.gather(*map(one, range(0, TEXTS, batch)))
        seconds = time.monotonic() - began
    if sum(counts) != TEXTS:
        raise RuntimeError(f"{TEXTS} texts sent, {sum(counts)} vectors came back")
    return TEXTS / seconds
