"""Sending without blocking an asyncio loop: one thread sends what has come together.

And what both ways of sending share: the error where Redis does not answer.
"""

import atexit
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import Any

from celery import Celery
from kombu.exceptions import BatchPublishError, OperationalError
from redis.exceptions import OutOfMemoryError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from modelserver.errors import StoreFullError, StoreUnreachableError
from modelserver.server_address import plain_url
from modelserver.store.server import trouble

#: Requests that are sent in one round trip, at most.
BATCH = 500
#: The end of a program waits so many seconds for what is still to be sent.
FINISH_SECONDS = 2.0

#: Sends one request over this producer; returns its result.
Send = Callable[[Any], Any]


@contextmanager
def accepted_or_unreachable(app: Celery) -> Iterator[None]:
    """Turn a lost connection into StoreUnreachableError: nothing was accepted."""
    try:
        yield
    except (OperationalError, BatchPublishError, RuntimeError, RedisError) as error:
        cause = error.__cause__ or error
        if not isinstance(cause, (OperationalError, BatchPublishError, RedisError)):
            raise
        prefix = app.conf.broker_transport_options["global_keyprefix"]
        if isinstance(cause, OutOfMemoryError):
            url = plain_url(app.conf.broker_url)
            raise StoreFullError(
                f"the request was not accepted: the memory of Redis at {url} is short "
                f"({cause}); wait until answers are read and forgotten, set "
                "defaults.result_expires_seconds lower, or raise its maxmemory"
            ) from None
        told = trouble.describe(cause, app.conf.broker_url, prefix)
        raise StoreUnreachableError(f"the request was not accepted: {told}") from None


def no_second_wait(error: Exception, _: float) -> None:
    """Ends the retries of a client's message, for kombu, if the server was silent."""
    if isinstance(error, RedisTimeoutError):
        raise error


class BackgroundSender:
    """Sends and revokes in a thread of its own, which starts with the first call."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew in a forked child; what was on its way is the parent's."""
        self._lock = threading.Lock()
        self._calls: queue.SimpleQueue[tuple[Future[Any], Send] | str] = (
            queue.SimpleQueue()
        )
        self._thread: threading.Thread | None = None

    def send(self, send: Send) -> "Future[Any]":
        """Have a request sent; the future is its result once Redis has it."""
        future: Future[Any] = Future()
        # The thread knows nothing of where a request came from, nor of its trace.
        context = copy_context()
        self._put((future, lambda producer: context.run(send, producer)))
        return future

    def revoke(self, sending: "Future[Any]") -> None:
        """Have a request revoked that was to be sent; does nothing if it was not."""
        if not sending.cancelled() and sending.exception() is None:
            self.call_off(sending.result().id)

    def call_off(self, task: str) -> None:
        """Have a request revoked."""
        self._put(task)

    def finish(self) -> None:
        """Send what is waiting to be sent, for a short while; a program ends."""
        if self._thread is not None:
            self._calls.put("")
            self._thread.join(FINISH_SECONDS)

    def _put(self, call: tuple["Future[Any]", Send] | str) -> None:
        self._calls.put(call)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="modelserver requests", daemon=True
                )
                self._thread.start()
                atexit.register(self.finish)

    def _run(self) -> None:
        while True:
            calls = [self._calls.get()]
            while len(calls) < BATCH:
                try:
                    calls.append(self._calls.get_nowait())
                except queue.Empty:
                    break
            self._send([call for call in calls if not isinstance(call, str)])
            ids = [call for call in calls if isinstance(call, str)]
            self._revoke([task for task in ids if task])
            if "" in ids:
                return

    def _send(self, calls: list[tuple["Future[Any]", Send]]) -> None:
        wanted = [
            (future, send)
            for future, send in calls
            if future.set_running_or_notify_cancel()
        ]
        if not wanted:
            return
        sent: list[tuple[Future[Any], Any]] = []
        try:
            with (
                accepted_or_unreachable(self._app),
                self._app.producer_or_acquire() as producer,
                producer.batch(BATCH),
            ):
                for future, send in wanted:
                    try:
                        sent.append((future, send(producer)))
                    except Exception as error:
                        future.set_exception(error)
        except Exception as error:
            for future, _ in wanted:
                if not future.done():
                    future.set_exception(error)
            return
        for future, result in sent:
            future.set_result(result)

    def _revoke(self, tasks: list[str]) -> None:
        if tasks:
            # Where Redis does not answer they go on, and nobody waits for them.
            with suppress(OperationalError, RedisError):
                self._app.control.revoke(tasks, terminate=True)
