"""The parts of answers as workers tell them: one subscription for a whole process.

What a lost connection has swallowed is read from the request's list, where all parts
stand for a while.
"""

import asyncio
import logging
import time
import uuid
from collections import defaultdict
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from modelserver.gateway.patience import end
from modelserver.store.keys import Keys
from modelserver.store.messages.streams import read_message, read_parts
from modelserver.store.server.away_log import AwayLog

#: A stream that nothing was told of for so many seconds is looked up.
QUIET_SECONDS = 5.0
#: Wait before another try while Redis is away, in seconds.
AWAY_SECONDS = 0.5

logger = logging.getLogger(__name__)

#: Parts of an answer, in order.
Parts = list[dict[str, Any]]


class Arrivals:
    """The parts of one answer."""

    def __init__(self, inbox: "Inbox", task: str) -> None:
        self._inbox = inbox
        self._task = task
        #: Additions that were read.
        self._place = 0
        self._told: dict[int, Parts] = {}
        self._news = asyncio.Event()

    def tell(self, place: int, parts: Parts) -> None:
        """Parts have come, perhaps before others."""
        if place >= self._place:
            self._told[place] = parts
            self._news.set()

    def look_up(self) -> None:
        """Something may have been missed."""
        self._news.set()

    async def next(self) -> Parts:
        """The next parts; [] after a while without any. Raises RedisError."""
        with suppress(TimeoutError):
            async with asyncio.timeout(QUIET_SECONDS):
                await self._news.wait()
        self._news.clear()
        found: Parts = self._in_order()
        return found or await self.rest()

    async def rest(self) -> Parts:
        """All parts that stand in the list and were not read yet. Raises RedisError."""
        additions = await self._inbox.read(self._task, self._place)
        self._place += len(additions)
        found = [part for parts in additions for part in parts]
        return found + self._in_order()

    def _in_order(self) -> Parts:
        found: Parts = []
        while (parts := self._told.pop(self._place, None)) is not None:
            found += parts
            self._place += 1
        return found


class Inbox:
    """Hands parts to whoever waits for them. Lives on a loop."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        #: What requests are told to name.
        self.gateway = uuid.uuid4().hex[:16]
        self._client = client
        self._keys = keys
        #: By task; a repeat of a request has the same.
        self._open: defaultdict[str, list[Arrivals]] = defaultdict(list)
        self._away_log = AwayLog(logger, "what is told of streams")
        self._listening: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to listen."""
        self._listening = asyncio.create_task(self._listen())

    async def stop(self) -> None:
        """Listen no more."""
        if self._listening is not None:
            await end([self._listening])

    def expect(self, task: str) -> Arrivals:
        """From now on keep what is told of this answer."""
        arrivals = Arrivals(self, task)
        self._open[task].append(arrivals)
        return arrivals

    def forget(self, task: str, arrivals: Arrivals) -> None:
        """What was expected so is not waited for any more."""
        self._open[task].remove(arrivals)
        if not self._open[task]:
            del self._open[task]

    async def read(self, task: str, first: int) -> list[Parts]:
        """The additions to an answer from a place on. Raises RedisError."""
        return await read_parts(self._client, self._keys, task, first)

    async def _listen(self) -> None:
        while True:
            try:
                async with self._client.pubsub() as channel:
                    await channel.subscribe(self._keys.gateway(self.gateway))
                    self._away_log.back(time.monotonic())
                    for each in self._open.values():
                        for arrivals in each:
                            arrivals.look_up()
                    async for message in channel.listen():
                        if message["type"] == "message":
                            self._hand_over(message["data"])
            except (RedisError, OSError) as error:
                self._away_log.away(error, time.monotonic())
                await asyncio.sleep(AWAY_SECONDS)

    def _hand_over(self, data: bytes) -> None:
        task, place, parts = read_message(data)
        for arrivals in self._open.get(task, ()):
            # Each its own: what makes events of parts changes them.
            arrivals.tell(place, [dict(part) for part in parts])
