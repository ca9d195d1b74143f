"""Connections that only hold a place: idle, with slow headers, with half a body."""

import asyncio
import os
import resource
import statistics
import time
from collections.abc import Iterator
from contextlib import suppress

import aiohttp

from benchmarks.report import Goal, Report
from benchmarks.rig import CHAT_MODEL, Rig
from modelserver.cli.serve import IDLE_SECONDS
from modelserver.gateway.reading import SILENT_BODY_SECONDS
from tests.chaos.served import start_gateway

#: Connections that are held, a third of each kind; RUN_CONNECTIONS for another number.
CONNECTIONS = int(os.environ.get("RUN_CONNECTIONS", "10000"))
#: Requests that are timed alone and beside them.
REQUESTS = 200
#: Requests may take so many times as long beside them as alone, at the median.
MOST_TIMES = 1.5
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\n"
#: What a connection has sent by the time that it falls silent.
SENT = (b"", HEAD + b"X-Slow: 1", HEAD + b"Content-Length: 1000\r\n\r\n{")


def gateway_crowd() -> Report:
    """10,000 connections that ask nothing, and requests of others beside them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with Rig(limit=64) as rig:
        rig.worker()
        gateway, url = start_gateway(rig)
        alone, beside, left = asyncio.run(_measure(url))
        down = 2 - rig.living() + (not gateway.alive)
    times = statistics.median(beside) / statistics.median(alone)
    rows = tuple(
        (name, 1000 * statistics.median(found), 1000 * max(found))
        for name, found in (("alone", alone), ("beside them", beside))
    )
    return Report(
        ("requests", "p50 ms", "longest ms"),
        rows,
        (
            Goal("times as long", times, MOST_TIMES, at_most=True),
            Goal("connections never closed", left, 0, at_most=True),
            Goal("processes down", down, 0, at_most=True),
        ),
        (f"{CONNECTIONS} connections, in turn idle, with slow headers, half a body",),
    )


async def _measure(url: str) -> tuple[list[float], list[float], int]:
    """Seconds of requests alone and beside the crowd; of it, how many are left."""
    port = int(url.rpartition(":")[2])
    async with aiohttp.ClientSession() as session:
        alone = [await _ask(session, url) for _ in range(REQUESTS)]
        held = [await _hold(port, sent) for sent in _kinds()]
        beside = [await _ask(session, url) for _ in range(REQUESTS)]
    ended = [asyncio.create_task(_ended(reader)) for reader, _ in held]
    within = max(IDLE_SECONDS, SILENT_BODY_SECONDS) + 15
    _, left = await asyncio.wait(ended, timeout=within)
    for each in left:
        each.cancel()
    for _, writer in held:
        writer.close()
    return alone, beside, len(left)


def _kinds() -> Iterator[bytes]:
    for number in range(CONNECTIONS):
        yield SENT[number % len(SENT)]


async def _hold(
    port: int, sent: bytes
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    return reader, writer


async def _ended(reader: asyncio.StreamReader) -> None:
    with suppress(ConnectionError):
        while await reader.read(4096):
            pass


async def _ask(session: aiohttp.ClientSession, url: str) -> float:
    began = time.monotonic()
    asked = {"model": CHAT_MODEL, "prompt": "hi", "max_tokens": 1}
    async with session.post(f"{url}/v1/completions", json=asked) as response:
        assert response.status == 200, await response.text()
        await response.read()
    return time.monotonic() - began
