"""Load on an OpenAI server by one asyncio client: held full, at a rate, in streams."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp

#: The words of a request; a place makes it one of its own.
WORDS = "tell me about number {place} and say what it is good for"
#: How long an answer may take, in seconds.
PATIENCE = aiohttp.ClientTimeout(total=60)


@dataclass(slots=True)
class Found:
    """What a load has found."""

    #: Seconds of each request.
    seconds: list[float] = field(default_factory=list)
    #: Seconds to the first token of each stream.
    first: list[float] = field(default_factory=list)
    #: When requests ended, by the monotonic clock.
    ends: list[float] = field(default_factory=list)
    tokens: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """Where requests go, and what they ask for."""

    base: str
    model: str
    max_tokens: int = 16
    stream: bool = False

    async def one(self, session: aiohttp.ClientSession, place: int, to: Found) -> None:
        """One request, and what came of it."""
        body = {
            "model": self.model,
            "prompt": WORDS.format(place=place),
            "max_tokens": self.max_tokens,
            "stream": self.stream,
        }
        began = time.monotonic()
        url = f"{self.base}/v1/completions"
        async with session.post(url, json=body) as response:
            if self.stream:
                await self._read_parts(response, began, to)
            else:
                answer = await response.json(content_type=None)
                to.failed += not answer.get("choices")
        to.ends.append(time.monotonic())
        to.seconds.append(to.ends[-1] - began)

    async def _read_parts(
        self, response: aiohttp.ClientResponse, began: float, to: Found
    ) -> None:
        tokens = 0
        async for line in response.content:
            if line.startswith(b"data: {"):
                chunk = json.loads(line[6:])
                if not chunk.get("choices"):
                    continue
                if not tokens:
                    to.first.append(time.monotonic() - began)
                tokens += 1
        to.tokens += tokens
        to.failed += tokens < self.max_tokens


def full(load: Load, number: int, in_flight: int) -> Found:
    """So many requests, as many at a time as are to be in flight."""

    async def send(session: aiohttp.ClientSession, found: Found) -> None:
        gate = asyncio.Semaphore(in_flight)

        async def one(place: int) -> None:
            async with gate:
                await load.one(session, place, found)

        await asyncio.gather(*map(one, range(number)))

    return _run(send)


def trickle(load: Load, rate: float, seconds: float) -> Found:
    """Requests at a steady rate, however long each takes."""

    async def send(session: aiohttp.ClientSession, found: Found) -> None:
        began, sent = time.monotonic(), []
        for place in range(int(rate * seconds)):
            await asyncio.sleep(began + place / rate - time.monotonic())
            sent.append(asyncio.create_task(load.one(session, place, found)))
        await asyncio.gather(*sent)

    return _run(send)


def _run(send: Callable[[aiohttp.ClientSession, Found], Awaitable[None]]) -> Found:
    async def main() -> Found:
        found = Found()
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=3)
        async with aiohttp.ClientSession(
            connector=connector, timeout=PATIENCE
        ) as session:
            await send(session, found)
        return found

    return asyncio.run(main())
