"""Asking again while Redis does not answer, and ending what asks."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from redis.exceptions import RedisError

from modelserver.errors import StoreUnreachableError
from modelserver.store.server.line import read_error

#: Where Redis does not answer, a request waits for it so long, in seconds.
PATIENCE_SECONDS = 20.0
#: Seconds between two tries.
PAUSE_SECONDS = 0.25
#: Seconds between two looks whether what was cancelled has ended.
LOOK_SECONDS = 1.0
T = TypeVar("T")


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask again while Redis does not answer, within bounds.

    Only for what may be asked twice.
    """
    ends = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return await ask()
        except (StoreUnreachableError, RedisError, OSError):
            if time.monotonic() > ends:
                raise
        await asyncio.sleep(PAUSE_SECONDS)


async def end(tasks: Iterable["asyncio.Future[Any]"]) -> None:
    """Cancel tasks, and wait until they are over.

    One that is just asking Redis, or connecting, may miss it in Python 3.11.
    """
    going = set(tasks)
    while going:
        for task in going:
            task.cancel()
        done, going = await asyncio.wait(going, timeout=LOOK_SECONDS)
        for task in done:
            read_error(task)
