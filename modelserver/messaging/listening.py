"""Answers as they arrive: one thread and one connection for all that wait.

Only what somebody waits for is subscribed to. Each subscription is followed by a look
for the answer, so that none is missed which came before it.
"""

import collections
import contextlib
import logging
import queue
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import redis
from celery import states
from celery.exceptions import TimeoutError as CeleryTimeoutError
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import RedisError

from modelserver.errors import StoreUnreachableError

T = TypeVar("T")
#: Takes an answer's decoded body, or the error that ends the wait. On our thread.
Tell = Callable[[dict[str, Any] | Exception], None]

#: Keys in one command.
BLOCK = 1_000
#: A server that does not answer for so many seconds ends all waits with an error.
PATIENCE_SECONDS = 60.0
#: The thread and its connection end when nobody has waited for so many seconds.
IDLE_SECONDS = 10.0
#: A server that says nothing for so many seconds is asked for a sign of life.
QUIET_SECONDS = 15.0
#: Seconds between two attempts to connect.
PAUSE_SECONDS = 0.25

#: Of a long list of results so many are listened for at a time, the first ones.
WINDOW = 10_000

logger = logging.getLogger(__name__)


def blocks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """The values in parts of at most BLOCK."""
    for start in range(0, len(values), BLOCK):
        yield values[start : start + BLOCK]


def silent_error(address: str, cause: str) -> StoreUnreachableError:
    """The end of all waits for answers of a server that was silent for too long."""
    return StoreUnreachableError(
        f"Redis at {address} has not answered for {PATIENCE_SECONDS:.0f} s ({cause}); "
        "requests that were accepted go on when it is back: start it, and ask for the "
        "answer again"
    )


class AnswerListener:
    """Tells whoever waits for a result's key what is stored under it.

    A forked child calls ``after_fork`` first: it has neither the thread nor a
    connection of its own.
    """

    def __init__(
        self,
        client: Callable[[], redis.Redis],
        decode: Callable[[bytes], dict[str, Any]],
        address: str,
    ) -> None:
        self._client = client
        self._decode = decode
        self._address = address
        self._connection: Any = None
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._waits: dict[str, list[Tell]] = {}
        #: Keys that are to be subscribed to and looked for.
        self._new: collections.deque[str] = collections.deque()
        #: Keys that nobody waits for any more.
        self._done: collections.deque[str] = collections.deque()
        self._wake: tuple[socket.socket, socket.socket] | None = None
        self._thread: threading.Thread | None = None

    def after_fork(self) -> None:
        """Begin anew in a forked child; the parent's waits stay its own."""
        inherited, wake = self._connection, self._wake
        self._connection = None
        self._start_afresh()
        for end in wake or ():
            end.close()
        if inherited is not None:
            # Closes the child's copy only: it is another process's connection.
            inherited.disconnect()

    def listen(self, keys: Iterable[str], tell: Tell) -> None:
        """Call ``tell`` with each state of these results, until a final one."""
        with self._lock:
            for key in keys:
                self._waits.setdefault(key, []).append(tell)
                self._new.append(key)
            if self._thread is None:
                self._wake = socket.socketpair()
                for end in self._wake:
                    end.setblocking(False)
                self._thread = threading.Thread(
                    target=self._run,
                    args=(self._wake,),
                    name="modelserver answers",
                    daemon=True,
                )
                self._thread.start()
            self._ring()

    def forget(self, keys: Iterable[str], tell: Tell) -> None:
        """Call ``tell`` no more for these results."""
        with self._lock:
            for key in keys:
                waits = self._waits.get(key)
                if waits and tell in waits:
                    waits.remove(tell)
                    if not waits:
                        del self._waits[key]
                        self._done.append(key)
            self._ring()

    def stop(self) -> None:
        """Forget all waits and end the thread."""
        with self._lock:
            self._waits.clear()
            thread, self._thread = self._thread, None
            self._ring()
            self._wake = None
        if thread is not None and thread is not threading.current_thread():
            thread.join(PATIENCE_SECONDS)

    @property
    def listening(self) -> frozenset[str]:
        """The keys that somebody waits for."""
        with self._lock:
            return frozenset(self._waits)

    def _ring(self) -> None:
        if self._wake is not None:
            # A full pipe wakes as well.
            with contextlib.suppress(BlockingIOError):
                self._wake[1].send(b"\0")

    # On the thread.

    def _run(self, wake: tuple[socket.socket, socket.socket]) -> None:
        lost_at: float | None = None
        while True:
            try:
                with self._connected():
                    lost_at = None
                    self._serve(wake[0])
            except (RedisError, OSError) as error:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > PATIENCE_SECONDS:
                    self._give_up(error)
                    lost_at = None
                time.sleep(PAUSE_SECONDS)
            if self._may_end():
                break
        for end in wake:
            end.close()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        pool = self._client().connection_pool
        # Not the pool's: the thread alone reads it. Its messages are plain lists.
        options = pool.connection_kwargs | {"protocol": 2, "decode_responses": False}
        connection = pool.connection_class(**options)
        try:
            connection.connect()
            self._connection = connection
            with self._lock:
                self._done.clear()
                self._new = collections.deque(self._waits)
            yield
        finally:
            self._connection = None
            connection.disconnect()

    def _serve(self, wake: socket.socket) -> None:
        """Listen until the connection breaks or nobody waits any more."""
        connection = self._connection
        idle_since = heard_at = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(wake, selectors.EVENT_READ)
            selector.register(connection._sock, selectors.EVENT_READ)
            while self._thread is threading.current_thread():
                self._subscribe(connection)
                ready = selector.select(timeout=1.0)
                with contextlib.suppress(BlockingIOError):
                    while wake.recv(4096):
                        pass
                now = time.monotonic()
                if ready:
                    idle_since = now
                if self._hear(connection):
                    heard_at = now
                elif now - heard_at > 2 * QUIET_SECONDS:
                    raise LostError("the server has fallen silent")
                elif now - heard_at > QUIET_SECONDS:
                    connection.send_command("PING", check_health=False)
                if not self._waits and now - idle_since > IDLE_SECONDS:
                    return

    def _subscribe(self, connection: Any) -> None:
        with self._lock:
            new, self._new = list(self._new), collections.deque()
            done = [key for key in self._done if key not in self._waits]
            self._done.clear()
        for command, keys in (("UNSUBSCRIBE", done), ("SUBSCRIBE", new)):
            for block in blocks(keys):
                connection.send_command(command, *block, check_health=False)

    def _hear(self, connection: Any) -> bool:
        """Read all that has come; says whether anything has."""
        heard, unread = False, []
        while connection.can_read(timeout=0):
            heard = True
            kind, key, *rest = connection.read_response()
            if kind == b"subscribe" or (kind == b"message" and not rest[0]):
                # A large answer is told by an empty notice, where that was asked for.
                unread.append(key.decode())
            elif kind == b"message":
                self._tell(key.decode(), rest[0])
        for block in blocks(unread):
            values: Any = self._client().mget(block)
            for name, value in zip(block, values, strict=True):
                if value is not None:
                    self._tell(name, value)
        return heard

    def _tell(self, key: str, value: bytes) -> None:
        try:
            meta: dict[str, Any] | Exception = self._decode(value)
        except Exception as error:
            # Whoever waits for this one hears of it; the others go on.
            meta = error
        final = isinstance(meta, Exception) or meta["status"] in states.READY_STATES
        with self._lock:
            if final:
                tells = self._waits.pop(key, [])
                self._done.append(key)
            else:
                tells = list(self._waits.get(key, ()))
        for tell in tells:
            try:
                # Each its own: Celery changes it.
                tell(dict(meta) if isinstance(meta, Mapping) else meta)
            except Exception:
                logger.exception("a callback for the result %s failed", key)

    def _give_up(self, cause: Exception) -> None:
        with self._lock:
            waits, self._waits = self._waits, {}
        error = silent_error(self._address, str(cause))
        # Once for each waiter, however many results it waits for.
        for tell in {tell: None for tells in waits.values() for tell in tells}:
            with contextlib.suppress(Exception):
                tell(error)

    def _may_end(self) -> bool:
        with self._lock:
            if self._thread is not threading.current_thread():
                return True
            if self._waits:
                return False
            # Whoever waits from now on starts another thread.
            self._thread, self._wake = None, None
            return True


class Wait:
    """One thread's wait for a list of results that were not there yet.

    Of a long list only a part is listened for at a time. The rest is looked through,
    a block at a time, while nothing comes.
    """

    def __init__(
        self,
        listener: AnswerListener,
        results: Sequence[Any],
        key_of: Callable[[str], str],
    ) -> None:
        self._listener = listener
        self._key_of = key_of
        self._open: dict[str, list[Any]] = {}
        for result in results:
            self._open.setdefault(result.id, []).append(result)
        #: Ids that are not listened for yet, in order.
        self._later = collections.deque(self._open)
        self._heard: set[str] = set()
        self._arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
        # One object: a bound method is another one each time that it is named.
        self._tell: Tell = self._arrived.put

    def __enter__(self) -> "Wait":
        self._listen_for_more()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.forget(map(self._key_of, self._heard), self._tell)

    def arrivals(
        self,
        ends_at: float | None,
        interval: float,
        on_interval: Callable[[], None] | None,
        on_message: Callable[[dict[str, Any]], None] | None,
    ) -> Iterator[Any]:
        """The results as they come. Raises Celery's TimeoutError."""
        while self._open:
            left = interval if ends_at is None else ends_at - time.monotonic()
            if left <= 0:
                raise CeleryTimeoutError("The operation timed out.")
            try:
                meta = self._arrived.get(timeout=min(interval, left))
            except queue.Empty:
                self._rotate()
                if on_interval:
                    on_interval()
                continue
            if isinstance(meta, Exception):
                raise meta
            if on_message:
                on_message(meta)
            if meta["status"] in states.READY_STATES:
                yield from self._close(meta)

    def _close(self, meta: dict[str, Any]) -> Iterator[Any]:
        task = meta["task_id"]
        self._heard.discard(task)
        for result in self._open.pop(task, ()):
            result._maybe_set_cache(dict(meta))
            yield result
        if self._later and len(self._heard) <= WINDOW - BLOCK:
            self._listen_for_more()

    def _listen_for_more(self) -> None:
        room = min(WINDOW - len(self._heard), len(self._later))
        tasks = [self._later.popleft() for _ in range(room)]
        self._heard.update(tasks)
        self._listener.listen(map(self._key_of, tasks), self._tell)

    def _rotate(self) -> None:
        """Listen for the next block in place of one that has been listened for."""
        if not self._later:
            return
        tasks = list(self._heard)[:BLOCK]
        self._heard.difference_update(tasks)
        self._listener.forget(map(self._key_of, tasks), self._tell)
        self._later.extend(tasks)
        self._listen_for_more()
