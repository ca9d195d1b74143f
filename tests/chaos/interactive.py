"""Requests of people beside a batch that would take every place."""

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Callable

import aiohttp

from benchmarks.report import Goal, Report
from benchmarks.rig import CHAT_MODEL, Rig
from tests.chaos.served import start_gateway
from tests.support.processes import eventually

#: Rows of the batch; RUN_ROWS makes it another number.
ROWS = int(os.environ.get("RUN_ROWS", "20000"))
#: Streams a second, and for how long alone and beside the batch, in seconds.
RATE, SECONDS = 2.0, 40.0
#: Streams of the first seconds are not counted: nothing is known of them yet.
WARM_SECONDS = 10.0
#: What the engine takes at once, how long for one, in seconds, and its tokens.
LIMIT, ENGINE_SECONDS, TOKENS = 16, 1.0, 20
#: The first token may take so many times as long as alone.
MOST_TIMES = 1.5
#: The batch gets this part of the engine's places at least.
LEAST_BUSY = 0.6


def interactive() -> Report:
    """2 streams a second alone and beside a batch: the time to their first token."""
    with Rig("--latency", str(ENGINE_SECONDS), limit=LIMIT) as rig:
        rig.worker()
        _, url = start_gateway(rig)
        rig.program([sys.executable, "-m", "modelserver.cli", "batches"], "batches")
        alone = asyncio.run(_streams(url))
        done = rig.engines[0].stats()["completed"]
        asyncio.run(_begin_batch(url))
        _await_batch(rig, done)
        before, began = rig.engines[0].stats()["completed"], time.monotonic()
        beside = asyncio.run(_streams(url))
        seconds = time.monotonic() - began
        rows = rig.engines[0].stats()["completed"] - before - len(beside)
    busy = rows / seconds * ENGINE_SECONDS / LIMIT
    times = statistics.median(beside) / statistics.median(alone)
    return Report(
        ("streams", "first token p50 ms", "p95 ms", "longest ms"),
        tuple(
            (name, *(1000 * pick(found) for pick in _PICKS))
            for name, found in (("alone", alone), ("beside the batch", beside))
        ),
        (
            Goal("times as long to the first token", times, MOST_TIMES, at_most=True),
            Goal("places with rows", busy, LEAST_BUSY),
        ),
        (f"{rows} of {ROWS} rows were answered in {seconds:.0f} s beside them",),
    )


_PICKS: tuple[Callable[[list[float]], float], ...] = (
    statistics.median,
    lambda found: statistics.quantiles(found, n=20)[-1],
    max,
)


async def _streams(url: str) -> list[float]:
    """Seconds to the first token of streams that begin at a steady rate."""
    async with aiohttp.ClientSession() as session:
        asked = []
        for _ in range(int(RATE * SECONDS)):
            asked.append(asyncio.create_task(_first_token(session, url)))
            await asyncio.sleep(1 / RATE)
        found = await asyncio.gather(*asked)
    return list(found[int(RATE * WARM_SECONDS) :])


async def _first_token(session: aiohttp.ClientSession, url: str) -> float:
    began, first = time.monotonic(), 0.0
    asked = {"model": CHAT_MODEL, "prompt": "hi", "max_tokens": TOKENS, "stream": True}
    async with session.post(f"{url}/v1/completions", json=asked) as response:
        assert response.status == 200, await response.text()
        async for line in response.content:
            assert not line.startswith(b'data: {"error"'), line
            if line.startswith(b"data: {") and not first:
                first = time.monotonic() - began
    assert first, "a stream without a token"
    return first


async def _begin_batch(url: str) -> None:
    body = {"model": CHAT_MODEL, "max_tokens": TOKENS}
    rows = "".join(
        json.dumps(
            {
                "custom_id": f"row-{number}",
                "method": "POST",
                "url": "/v1/completions",
                "body": body | {"prompt": f"row {number}"},
            }
        )
        + "\n"
        for number in range(ROWS)
    )
    form = aiohttp.FormData({"purpose": "batch"})
    form.add_field("file", rows.encode(), filename="in.jsonl")
    async with aiohttp.ClientSession(url, raise_for_status=True) as session:
        async with session.post("/v1/files", data=form) as response:
            file = (await response.json())["id"]
        asked = {
            "input_file_id": file,
            "endpoint": "/v1/completions",
            "completion_window": "24h",
        }
        async with session.post("/v1/batches", json=asked) as response:
            await response.read()


def _await_batch(rig: Rig, done: int) -> None:
    """Wait until the batch is well under way."""
    engine = rig.engines[0]
    eventually(lambda: engine.stats()["completed"] > done + 2 * LIMIT, within=120)
