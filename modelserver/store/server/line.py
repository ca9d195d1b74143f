"""One connection for many commands at once, and for what channels tell. On a loop.

A command goes out as it comes and does not wait for the reply to the one before it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import hiredis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import (
    InvalidResponse,
    NoPermissionError,
    RedisError,
    ResponseError,
)

from modelserver.store.server.away_log import AwayLog
from modelserver.store.server.connections import lost_error, refuses_writes

#: A server that says nothing for so many seconds is asked for a sign of life.
QUIET_SECONDS = 5.0
#: One that still says nothing after so many seconds is lost.
SILENT_SECONDS = 12.0
#: Seconds between two attempts to connect.
PAUSE_SECONDS = 0.25
#: Bytes that are read at a time.
READ_BYTES = 1 << 16
#: A value of more bytes is sent as it is: copies of tens of megabytes hold the loop.
LONG_BYTES = 1 << 20
#: What the reader of replies says where there is no whole one.
_NONE_YET = object()

logger = logging.getLogger(__name__)


class Line:
    """A connection like those of ``client``, which is opened again where it is lost.

    ``on_message`` is called with what is told on a channel, ``on_open`` with each new
    connection: it subscribes to what the one before it was subscribed to. ``what``
    waits, the log says, while it is lost.
    """

    def __init__(
        self,
        client: Redis,
        on_message: Callable[[bytes, bytes], None],
        on_open: Callable[[], None],
        what: str = "each request",
    ) -> None:
        self._pool = client.connection_pool
        self._on_message = on_message
        self._on_open = on_open
        self._log = AwayLog(logger, what)
        self._connection: Any = None
        #: Commands of this turn of the loop: they go out together.
        self._unsent: list[bytes] = []
        #: What waits for a reply, in the order of the commands.
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._heard_at = 0.0
        #: Since when the server does not answer, by the loop's clock; None if it does.
        self.lost_at: float | None = None
        #: Why it was lost last.
        self.lost_by = ""

    def send(self, *command: Any) -> "asyncio.Future[Any]":
        """Send a command; the future is its reply. Raises ConnectionError."""
        self._write(command)
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        return future

    def subscribe(self, *channels: str) -> None:
        """From now on hear these channels. Raises ConnectionError."""
        self._write(("SUBSCRIBE", *channels))

    def unsubscribe(self, *channels: str) -> None:
        """Hear these channels no more. Raises ConnectionError."""
        self._write(("UNSUBSCRIBE", *channels))

    def subscribe_by(self, pattern: str) -> None:
        """From now on hear the channels like this one. Raises ConnectionError."""
        self._write(("PSUBSCRIBE", pattern))

    def _write(self, command: tuple[Any, ...]) -> None:
        if self._connection is None:
            raise LostError("not connected")
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush, self._connection)
        self._unsent += _packed(command)

    def _flush(self, connection: Any) -> None:
        if connection is not self._connection:
            return
        short: list[bytes] = []
        for piece in self._unsent:
            if len(piece) > LONG_BYTES:
                connection._writer.write(b"".join(short))
                connection._writer.write(piece)
                short.clear()
            else:
                short.append(piece)
        connection._writer.write(b"".join(short))
        self._unsent.clear()

    async def run(self) -> None:
        """Keep the connection open, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            watching: asyncio.Task[None] | None = None
            # Its messages are told apart from replies by their type.
            kind, options = self._pool.connection_class, self._pool.connection_kwargs
            connection = kind(**options | {"protocol": 3, "decode_responses": False})
            try:
                await connection.connect()
                self._connection, self._heard_at = connection, loop.time()
                self._on_open()
                self._ask()
                watching = loop.create_task(self._watch(connection))
                await self._read(connection)
            except Exception as error:
                is_known = isinstance(error, (RedisError, OSError))
                if not is_known and self.lost_at is None:
                    logger.exception("the connection is opened again")
                self._log.away(error, loop.time())
                if self.lost_at is None:
                    self.lost_at = loop.time()
                self.lost_by = str(error)
                self._lose(error if is_known else LostError(repr(error)))
            finally:
                self._connection = None
                self._unsent.clear()
                self._lose(LostError("the connection is closed"))
                if watching is not None:
                    watching.cancel()
                with suppress(RedisError, OSError):
                    await connection.disconnect()
            await asyncio.sleep(PAUSE_SECONDS)

    def _ask(self) -> None:
        """Ask for a sign of life, of which nobody asks what became of it."""
        self.send("PING").add_done_callback(read_error)

    async def _watch(self, connection: Any) -> None:
        """Close the connection where the server falls silent."""
        loop = asyncio.get_running_loop()
        while (quiet := loop.time() - self._heard_at) < SILENT_SECONDS:
            if quiet > QUIET_SECONDS:
                self._ask()
            await asyncio.sleep(QUIET_SECONDS / 2)
        connection._writer.transport.abort()

    async def _read(self, connection: Any) -> None:
        reader = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=connection._parser.parse_error,
            notEnoughData=_NONE_YET,
        )
        loop = asyncio.get_running_loop()
        while data := await connection._reader.read(READ_BYTES):
            self._heard_at = loop.time()
            reader.feed(data)
            while (reply := reader.gets()) is not _NONE_YET:
                self._take(reply)
                # Not before: a server may refuse all that follows the connecting.
                self.lost_at = None
                self._log.back(self._heard_at)
        raise LostError("the server has closed the connection")

    def _take(self, reply: Any) -> None:
        if isinstance(reply, hiredis.PushNotification):
            if reply[0] in (b"message", b"pmessage"):
                self._on_message(reply[-2], reply[-1])
            return
        if isinstance(reply, NoPermissionError) or _is_busy(reply):
            # A subscription's, perhaps, which has no place among the replies.
            raise reply
        if isinstance(reply, ResponseError) and refuses_writes(reply):
            raise lost_error(reply)
        future = self._waiting.popleft()
        if future.done():
            return
        if isinstance(reply, Exception):
            future.set_exception(reply)
        else:
            future.set_result(reply)

    def _lose(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, deque()
        for future in waiting:
            if not future.done():
                future.set_exception(error)


def _packed(command: tuple[Any, ...]) -> list[bytes]:
    """A command as it is sent, long values apart.

    >>> b"".join(_packed(("SET", "a", 1))) == hiredis.pack_command(("SET", "a", 1))
    True
    """
    if not any(isinstance(v, bytes) and len(v) > LONG_BYTES for v in command):
        return [hiredis.pack_command(command)]
    pieces = [b"*%d\r\n" % len(command)]
    for value in command:
        if isinstance(value, bytes):
            pieces += (b"$%d\r\n" % len(value), value, b"\r\n")
        else:
            pieces.append(hiredis.pack_command((value,)).removeprefix(b"*1\r\n"))
    return pieces


def _is_busy(reply: Any) -> bool:
    """Whether a script that takes long keeps the server from all commands."""
    return isinstance(reply, ResponseError) and str(reply).startswith("BUSY ")


def read_error(future: "asyncio.Future[Any]") -> None:
    """Read what became of a future that nobody asks about."""
    if not future.cancelled():
        future.exception()
