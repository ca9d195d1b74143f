"""Calls of many rows' functions, on the way of rows: sent and answered in bulk.

One thread sends what has come together, keeps it in the journal before, and keeps each
answer there before whoever waits is told.
"""

import asyncio
import queue
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import orjson
from celery import Celery
from celery.exceptions import TaskRevokedError

from modelserver.errors import ModelserverError
from modelserver.runs.feeder import LARGEST_BLOCK
from modelserver.runs.lane import Lane
from modelserver.runs.patience import AGAIN_SECONDS, Patience
from modelserver.runs.row_journal import RowJournal
from modelserver.runs.rows import Answered, Row, RowError

#: Without anything under way the thread looks around after so many seconds.
IDLE_SECONDS = 0.25
#: One wait for answers, in seconds: so long a new call may lie before it is sent.
RECEIVE_SECONDS = 0.02
#: Calls are gathered for so many seconds, so that bundles have many.
GATHER_SECONDS = 0.01
#: What is in the journal is made durable, and then forgotten by Redis, so often.
SYNC_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class Waiter:
    """Somebody in an event loop who is to be told something."""

    future: "asyncio.Future[Any]"
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)


@dataclass(slots=True, eq=False)
class Call:
    """One call, from when it is made until it is answered."""

    waiter: Waiter
    task: str
    payload: Any
    parameters: Mapping[str, Any]
    #: The journal's id of its row, and what tells it from the row's other calls.
    row: int = 0
    key: bytes = b""
    #: The number that it was sent under by an earlier session, -1 if it was not.
    number: int = -1


@dataclass(slots=True, eq=False)
class RowResult:
    """A row's result on its way into the journal."""

    waiter: Waiter
    row: int
    value: bytes


class CallCourier:
    """Takes calls from event loops, and answers them from a thread of its own.

    ``look`` is called by that thread now and then, ``fail`` once if it cannot go on.
    """

    def __init__(
        self,
        app: Celery,
        journal: RowJournal | None,
        priority: int | None,
        look: Callable[[], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self.run = journal.run if journal else f"rows-{uuid.uuid4().hex[:12]}"
        self._journal = journal
        self._lane = Lane(app, self.run, priority=priority)
        self._patience = Patience()
        self._look = look
        self._fail = fail
        self._queue: queue.SimpleQueue[Call | RowResult | None] = queue.SimpleQueue()
        #: Under way, by number.
        self._waiting: dict[int, Call] = {}
        self._unsent: list[Row] = []
        self._next = journal.first_number if journal else 0
        self._unsettled: list[int] = []
        self._sent_at = self._synced_at = time.monotonic()
        self._is_cancelled = False
        self._thread: threading.Thread | None = None
        #: What became of calls that were taken back, for people; "" for none.
        self.told = ""

    def start(self) -> None:
        """Collect what came since an earlier session, then begin.

        Raises StoreUnreachableError.
        """
        if self._journal:
            self._unsettled += self._journal.collect(self._lane)
        self._thread = threading.Thread(
            target=self._run, name="modelserver calls", daemon=True
        )
        self._thread.start()

    def put(self, item: Call | RowResult) -> None:
        """Have a call answered, or a result kept; its waiter is told."""
        self._queue.put(item)

    def close(self, cancel: bool) -> None:
        """End the thread; with ``cancel`` what has not begun is taken back."""
        self._is_cancelled = cancel
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join()

    # In the thread.

    def _run(self) -> None:
        try:
            while self._step():
                self._look()
        except BaseException as error:
            self._fail(error)
        with suppress(ModelserverError):
            self._finish()

    def _step(self) -> bool:
        items = self._gather()
        self._take([item for item in items if item is not None])
        self._send()
        self._receive()
        self._sync()
        return None not in items

    def _gather(self) -> list[Call | RowResult | None]:
        items = []
        is_idle = not (self._waiting or self._unsent or self._unsettled)
        with suppress(queue.Empty):
            if is_idle:
                items.append(self._queue.get(timeout=IDLE_SECONDS))
            while len(items) < LARGEST_BLOCK:
                items.append(self._queue.get_nowait())
        return items

    def _take(self, items: list[Call | RowResult]) -> None:
        if not items:
            return
        results = [item for item in items if isinstance(item, RowResult)]
        calls = [item for item in items if isinstance(item, Call)]
        told: list[tuple[Waiter, Any]] = [(each.waiter, None) for each in results]
        new = []
        for call in calls:
            old = None
            if call.number >= 0 and self._journal:
                old = self._journal.find_call(call.number)
            if old is not None and old.answer is not None:
                told.append((call.waiter, orjson.loads(old.answer)))
                continue
            if old is None:
                call.number, self._next = self._next, self._next + 1
                new.append((call.number, call.row, call.key))
            self._waiting[call.number] = call
            row = Row(call.number, call.task, call.payload, call.parameters)
            self._unsent.append(row)
        if self._journal:
            self._journal.add_calls(new)
            self._journal.add_results((each.row, each.value) for each in results)
            self._journal.commit()
        tell(told)

    def _send(self) -> None:
        rows = self._unsent[:LARGEST_BLOCK]
        now = time.monotonic()
        is_early = now - self._sent_at < GATHER_SECONDS and len(rows) < LARGEST_BLOCK
        if not rows or is_early:
            if rows and len(self._waiting) == len(self._unsent):
                time.sleep(GATHER_SECONDS)
            return
        self._sent_at = now
        if self._patience.try_call(self._lane.send, rows):
            del self._unsent[: len(rows)]
        else:
            time.sleep(AGAIN_SECONDS)

    def _receive(self) -> None:
        if len(self._waiting) == len(self._unsent):
            return
        seconds = GATHER_SECONDS if self._unsent else RECEIVE_SECONDS
        found: list[Answered] = []

        def receive() -> None:
            found.extend(self._lane.receive(seconds))

        if not self._patience.try_call(receive):
            time.sleep(AGAIN_SECONDS)
        if not found:
            return
        self._keep(found)
        told = []
        for each in found:
            if call := self._waiting.pop(each.number, None):
                said = each.value if each.error is None else exception_of(each.error)
                told.append((call.waiter, said))
        tell(told)
        if self._journal is None:
            self._settle()

    def _keep(self, found: Sequence[Answered]) -> None:
        self._unsettled += [each.number for each in found]
        if self._journal:
            self._journal.keep(found)

    def _sync(self) -> None:
        now = time.monotonic()
        if self._unsettled and now - self._synced_at > SYNC_SECONDS:
            self._synced_at = now
            if self._journal:
                self._journal.sync()
            self._settle()

    def _settle(self) -> None:
        if self._patience.try_call(self._lane.settle, self._unsettled):
            self._unsettled = []

    def _finish(self) -> None:
        """Keep what came, and take back what has not begun."""
        if self._is_cancelled and self._waiting:
            try:
                taken = self._lane.cancel()
            except ModelserverError as error:
                self.told = f"their calls could not be cancelled: {error}"
            else:
                running = len(self._waiting) - len(self._unsent) - taken
                self.told = (
                    f"{taken:,} calls that waited are cancelled, "
                    f"{max(0, running):,} still run"
                )
        if self._journal:
            self._keep(self._lane.receive(0.0))
            self._journal.sync()
        self._lane.settle(self._unsettled)


def exception_of(error: RowError) -> Exception:
    """The error as ``aio`` raises it."""
    if error.fault == "cancelled":
        revoked: Exception = TaskRevokedError(error.message)
        return revoked
    return error.exception()


def tell(told: Iterable[tuple[Waiter, Any]]) -> None:
    """Tell waiters their answers, or the exceptions that they are to raise."""
    by_loop = defaultdict(list)
    for waiter, said in told:
        by_loop[waiter.loop].append((waiter.future, said))
    for loop, pairs in by_loop.items():
        # A loop that was closed waits for nothing.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_resolve, pairs)


def _resolve(pairs: Iterable[tuple["asyncio.Future[Any]", Any]]) -> None:
    for future, said in pairs:
        if future.done():
            continue
        if isinstance(said, Exception):
            future.set_exception(said)
        else:
            future.set_result(said)
