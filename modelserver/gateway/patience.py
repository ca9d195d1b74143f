"""Asking again while Redis does not answer."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.exceptions import RedisError

from modelserver.errors import StoreUnreachableError

#: Where Redis does not answer, a request waits for it so long, in seconds.
PATIENCE_SECONDS = 20.0
#: Seconds between two tries.
PAUSE_SECONDS = 0.25
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
