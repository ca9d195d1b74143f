"""Connections that leave a server which takes no writes, such as a demoted primary.

After a failover an old connection may still lead to the former primary, which lives on
as a replica and refuses what is written. Such a connection is closed here, and the
error is that of a lost one. So everybody goes on as after any other loss: over a new
connection to the fleet's address, which leads to the primary of now.
"""

from typing import Any

import redis
from redis import asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import MasterDownError, ReadOnlyError, ResponseError

#: How the replies begin of a server that takes no writes now: too few replicas are in
#: step, or its disk is full. Two more have errors of their own.
_REFUSALS = ("NOREPLICAS", "MISCONF")


def _refuses(error: ResponseError) -> bool:
    known = isinstance(error, (ReadOnlyError, MasterDownError))
    return known or str(error).startswith(_REFUSALS)


def _lost(error: ResponseError) -> LostError:
    return LostError(f"the server takes no writes now: {error}")


class StoreConnection(redis.Connection):
    """A blocking connection."""

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """A reply. Raises ConnectionError where the server takes no writes."""
        try:
            return super().read_response(*args, **kwargs)
        except ResponseError as error:
            if not _refuses(error):
                raise
            self.disconnect()
            raise _lost(error) from error


class SSLConnection(StoreConnection, redis.SSLConnection):
    """The same over TLS."""


class AsyncConnection(aioredis.Connection):
    """A connection for asyncio."""

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """A reply. Raises ConnectionError where the server takes no writes."""
        try:
            return await super().read_response(*args, **kwargs)
        except ResponseError as error:
            if not _refuses(error):
                raise
            await self.disconnect()
            raise _lost(error) from error


class AsyncSSLConnection(AsyncConnection, aioredis.SSLConnection):
    """The same over TLS."""


def blocking(url: str) -> type[StoreConnection]:
    """The class of blocking connections to a URL."""
    return SSLConnection if url.startswith("rediss:") else StoreConnection


def open_async(url: str, max_connections: int) -> aioredis.Redis:
    """A client for a worker's loop, which tries nothing again by itself.

    A lost reply to a pull leaves messages here that nobody knows: whoever asked must
    hear of it.
    """
    client = aioredis.Redis.from_url(
        url,
        max_connections=max_connections,
        socket_connect_timeout=5,
        socket_timeout=10,
        health_check_interval=15,
        retry=Retry(NoBackoff(), 0),
    )
    # For rediss:// the library sets its own, whatever it is told.
    tls = url.startswith("rediss:")
    pool = client.connection_pool
    pool.connection_class = AsyncSSLConnection if tls else AsyncConnection
    return client
