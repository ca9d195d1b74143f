"""Connections that leave a server which takes no writes, such as a demoted primary.

After a failover an old connection may still lead to the former primary, which lives on
as a replica and refuses what is written. Such a connection is closed here, and the
error is that of a lost one. So everybody goes on as after any other loss: over a new
connection to the fleet's address, which leads to the primary of now. Where sentinels
watch the servers, each new connection asks them for that address.
"""

from typing import Any

import redis
from redis import asyncio as aioredis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import MasterNotFoundError as AsyncMasterNotFoundError
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import (
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from modelserver.server_address import Sentinels, read_address
from modelserver.store.scripts.state import ANY_COMMAND

#: A sentinel that is silent for so many seconds is passed over.
SENTINEL_SECONDS = 1.0
#: How the replies begin of a server that takes no writes now: too few replicas are in
#: step, or its disk is full. Two more have errors of their own.
_REFUSALS = ("NOREPLICAS", "MISCONF")


def refuses_writes(error: ResponseError) -> bool:
    """Whether it says that the server takes no writes now."""
    known = isinstance(error, (ReadOnlyError, MasterDownError))
    return known or str(error).startswith(_REFUSALS)


def lost_error(error: ResponseError) -> LostError:
    """What is raised in its place: the connection is of no use."""
    return LostError(f"the server takes no writes now: {error}")


class LeavesDemoted:
    """How blocking connections leave a server that takes no writes."""

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """A reply. Raises ConnectionError where the server takes no writes."""
        try:
            return super().read_response(*args, **kwargs)  # type: ignore[misc]
        except ResponseError as error:
            if not refuses_writes(error):
                raise
            self.disconnect()  # type: ignore[attr-defined]
            raise lost_error(error) from error


class StoreConnection(LeavesDemoted, redis.Connection):
    """A blocking connection."""


class SSLConnection(StoreConnection, redis.SSLConnection):
    """The same over TLS."""


class UnixConnection(LeavesDemoted, redis.UnixDomainSocketConnection):
    """The same over a socket of this host."""


class FollowsSentinels:
    """How blocking connections find the primary of now: its sentinels are asked."""

    def __init__(self, *args: Any, sentinels: Sentinels, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sentinels = sentinels

    def _connect(self) -> Any:
        once = Retry(NoBackoff(), 0)
        asked = Sentinel(
            self._sentinels.addresses, sentinel_kwargs=_asking(self._sentinels, once)
        )
        try:
            place = asked.discover_master(self._sentinels.service)
        except MasterNotFoundError:
            raise _unnamed(self._sentinels) from None
        finally:
            for each in asked.sentinels:
                each.close()
        self.host, self.port = place
        return super()._connect()  # type: ignore[misc]


class SentinelConnection(FollowsSentinels, StoreConnection):
    """A blocking connection to the primary that sentinels name."""


class _AsyncLeavesDemoted:
    """The same for connections for asyncio."""

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """A reply. Raises ConnectionError where the server takes no writes."""
        try:
            return await super().read_response(*args, **kwargs)  # type: ignore[misc]
        except ResponseError as error:
            if not refuses_writes(error):
                raise
            await self.disconnect()  # type: ignore[attr-defined]
            raise lost_error(error) from error


class AsyncConnection(_AsyncLeavesDemoted, aioredis.Connection):
    """A connection for asyncio."""


class AsyncSSLConnection(AsyncConnection, aioredis.SSLConnection):
    """The same over TLS."""


class AsyncUnixConnection(_AsyncLeavesDemoted, aioredis.UnixDomainSocketConnection):
    """The same over a socket of this host."""


class AsyncSentinelConnection(AsyncConnection):
    """The same to the primary that sentinels name."""

    def __init__(self, *args: Any, sentinels: Sentinels, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sentinels = sentinels

    async def _connect(self) -> None:
        once = AsyncRetry(NoBackoff(), 0)
        asked = AsyncSentinel(
            self._sentinels.addresses, sentinel_kwargs=_asking(self._sentinels, once)
        )
        try:
            place = await asked.discover_master(self._sentinels.service)
        except AsyncMasterNotFoundError:
            raise _unnamed(self._sentinels) from None
        finally:
            for each in asked.sentinels:
                await each.aclose()
        self.host, self.port = place
        await super()._connect()


def _unnamed(sentinels: Sentinels) -> LostError:
    # redis-py's own text shows its objects, in some versions with their passwords.
    places = ", ".join(f"{host}:{port}" for host, port in sentinels.addresses)
    return LostError(
        f'no sentinel of {places} names a primary of "{sentinels.service}"; see that '
        "one runs, takes sentinel_password of the URL, and watches this group"
    )


def _asking(sentinels: Sentinels, retry: Retry | AsyncRetry) -> dict[str, Any]:
    """How each sentinel is asked: the next one is there for one that is silent."""
    seconds = {
        "socket_connect_timeout": SENTINEL_SECONDS,
        "socket_timeout": SENTINEL_SECONDS,
    }
    return {**sentinels.login, **seconds, "retry": retry}


#: The classes of connections by the scheme of an address.
_BLOCKING = {
    "redis": StoreConnection,
    "rediss": SSLConnection,
    "unix": UnixConnection,
    "sentinel": SentinelConnection,
}
_ASYNC = {
    "redis": AsyncConnection,
    "rediss": AsyncSSLConnection,
    "unix": AsyncUnixConnection,
    "sentinel": AsyncSentinelConnection,
}


#: Commands that a server at its memory limit refuses, and that the fleet's state needs:
#: what it holds hardly grows.
_GROWING = frozenset(
    ("SET", "SETEX", "HSET", "HSETNX", "HINCRBY", "INCR", "SADD", "XADD", "LPUSH")
)


def _at_the_limit(command: tuple[Any, ...]) -> tuple[Any, ...]:
    if command[0] in _GROWING:
        return ("EVAL", ANY_COMMAND, 0, *command)
    return command


class StoreClient(redis.Redis):
    """A blocking client whose own writes a server at its memory limit takes too."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run one command."""
        try:
            return super().execute_command(*args, **options)
        except OutOfMemoryError:
            if args[0] not in _GROWING:
                raise
            return super().execute_command(*_at_the_limit(args))

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:
        """Commands in one round trip, by default all or none."""
        return StorePipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )


class StorePipeline(redis.client.Pipeline):
    """Its commands in one round trip."""

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Run them; those that the fleet needs also at the server's memory limit."""
        stack = list(self.command_stack)
        try:
            return list(super().execute(raise_on_error))
        except OutOfMemoryError:
            if not (self.explicit_transaction or vars(self)["transaction"]):
                raise
            # The server has carried out none of them.
            for command, options in stack:
                super().execute_command(*_at_the_limit(command), **options)
            return list(super().execute(raise_on_error))


def blocking_arguments(url: str) -> dict[str, Any]:
    """What a pool of blocking connections to a URL is made with."""
    address = read_address(url)
    kind = {"connection_class": _BLOCKING[address.scheme]}
    return address.connection_arguments() | kind


def open_blocking(url: str, **options: Any) -> StoreClient:
    """A blocking client; ``options`` are those of redis-py's connections."""
    arguments = blocking_arguments(url) | options
    return StoreClient(connection_pool=redis.ConnectionPool(**arguments))


def open_async(url: str, max_connections: int, queues: bool = False) -> aioredis.Redis:
    """A client for a loop, which tries nothing again by itself.

    A lost reply to a pull leaves messages here that nobody knows: whoever asked must
    hear of it. With ``queues`` a command waits for a connection where all are in use,
    and is not refused.
    """
    address = read_address(url)
    kind = aioredis.BlockingConnectionPool if queues else aioredis.ConnectionPool
    pool = kind(
        connection_class=_ASYNC[address.scheme],
        max_connections=max_connections,
        **address.connection_arguments(),
        socket_connect_timeout=5,
        socket_timeout=10,
        health_check_interval=15,
        retry=AsyncRetry(NoBackoff(), 0),
    )
    return aioredis.Redis.from_pool(pool)
