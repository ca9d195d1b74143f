"""Functions of many rows under way in one event loop, with bounded memory."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import orjson
from celery import Celery

from modelserver.api import CALL_WAY
from modelserver.errors import DeadlineExceededError, RequestError
from modelserver.python310 import add_note, timeout
from modelserver.runs.feeder import HELD_WINDOWS, LARGEST_BLOCK, PULL_SECONDS
from modelserver.runs.prompts import length_of
from modelserver.runs.rollouts.calls import CallCourier, RowResult, Waiter
from modelserver.runs.rollouts.rows import (
    CallMaker,
    RowCalls,
    RowOutcome,
    as_json,
    name_of,
    row_digest,
    source_of,
)
from modelserver.runs.rollouts.stalls import StallWatch
from modelserver.runs.row_journal import ClaimedRow, RowJournal
from modelserver.runs.telling import RunTeller

log = logging.getLogger(__name__)

#: A row as it was pulled: its number, itself, and what the journal knows of it, or why
#: that cannot be.
Pulled = tuple[int, Any, ClaimedRow | RequestError | None]


class RowFunctions:
    """Rows in, outcomes out. ``begin``, then ``next_block`` to the end, then ``end``.

    All three are awaited in one loop, in which the rows' functions run.
    """

    def __init__(
        self,
        app: Celery,
        function: Callable[[Any], Awaitable[Any]],
        rows: Iterable[Any],
        journal: Path | None,
        *,
        at_once: int,
        is_ordered: bool,
        deadline: float | None,
        priority: int | None,
    ) -> None:
        self._app = app
        self._function = function
        self._rows = rows
        self._path = journal
        self._at_once = at_once
        self._is_ordered = is_ordered
        self._deadline = deadline
        self._priority = priority
        #: How many rows there are, None where that is not known before.
        self.total = length_of(rows)
        #: How many are done, and how many of these are errors.
        self.done = 0
        self.failed = 0
        self._name = name_of(function)
        self._journal: RowJournal | None = None
        self._courier: CallCourier | None = None
        self._teller: RunTeller | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._feeding: asyncio.Task[None] | None = None
        #: Outcomes that nobody has taken, those that wait for earlier ones, by number.
        self._ready: list[RowOutcome] = []
        self._held: dict[int, RowOutcome] = {}
        self._next = 0
        #: Rows whose outcomes are still to be taken.
        self._outstanding = 0
        self._is_fed = self._is_ended = False
        #: What ended the run before its end: an error of the rows' iterable, a Redis
        #: or a journal that cannot be used, a function that ends the program.
        self.failure: BaseException | None = None
        self._is_change_told = False
        file, self._source = source_of(function)
        #: Set when there is something to take, and when there is room for rows.
        self._came, self._freed = asyncio.Event(), asyncio.Event()
        self._watch = StallWatch(file)
        self._thread = ThreadPoolExecutor(1, "modelserver run")

    async def begin(self) -> None:
        """Open the journal and start. Raises BatchFileError, StoreUnreachableError."""
        loop = asyncio.get_running_loop()

        def fail(error: BaseException) -> None:
            loop.call_soon_threadsafe(self._fail, error)

        def start() -> CallCourier:
            if self._path is not None:
                self._journal = RowJournal(self._path)
                self._note_source(self._journal)
            self._courier = CallCourier(
                *(self._app, self._journal, self._priority, self._watch.look, fail)
            )
            self._courier.start()
            settings = self._app.modelserver_tasks[0].settings
            of = (self._courier.run, ("rows", self.total))
            self._teller = RunTeller(settings, *of, lambda: (self.done, self.failed))
            return self._courier

        courier = await loop.run_in_executor(self._thread, start)
        if self._is_ended:  # Ctrl-C came meanwhile.
            return
        self._maker = CallMaker(self._app, courier, self._deadline)
        self._watch.begin()
        self._feeding = loop.create_task(self._feed())

    def _note_source(self, journal: RowJournal) -> None:
        digest = hashlib.blake2b(self._source.encode(), digest_size=16).hexdigest()
        if journal.is_changed("source", digest):
            log.warning(
                "%s() is not what it was when %s was written: rows that are done keep "
                "their results, and calls that ask the same their answers; for new "
                "ones choose another journal",
                *(self._name, self._path),
            )

    async def next_block(self) -> list[RowOutcome]:
        """What is done since, in order if that is asked; [] at the end."""
        while self.failure is None and not self._is_ended:
            block, self._ready = self._ready, []
            if block:
                self._outstanding -= len(block)
                self._freed.set()
                return block
            if self._is_fed and not self._outstanding:
                return []
            self._came.clear()
            await self._came.wait()
        return []

    async def end(self, cancel: bool) -> None:
        """End all; with ``cancel`` calls that have not begun are taken back."""
        self._is_ended = True
        self._came.set()
        self._watch.end()
        tasks = [*self._tasks, *([self._feeding] if self._feeding else [])]
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            # Also where the loop ends, and cancels whoever waits in it.
            await self._end_thread(cancel)

    async def _end_thread(self, cancel: bool) -> None:
        try:
            work = asyncio.get_running_loop().run_in_executor(
                self._thread, self._close, cancel
            )
        except RuntimeError:  # The program ends, and its executors have.
            self._close(cancel)
        else:
            await asyncio.shield(work)
        self._thread.shutdown(wait=False)

    def _close(self, cancel: bool) -> None:
        if self._teller is not None:
            self._teller.end(not cancel)
        if self._courier is not None:
            self._courier.close(cancel)
        if self._journal is not None:
            rows, done = self._journal.count_others()
            if rows and not cancel:
                log.warning(
                    "%s has %s rows that are not among these, %s of them done; they "
                    "stay in it",
                    *(self._path, f"{rows:,}", f"{done:,}"),
                )
            self._journal.close()

    def said(self) -> str:
        """How far it came, once it has ended early."""
        of = "" if self.total is None else f" of {self.total:,}"
        told = self._courier.told if self._courier else ""
        said = f"{self.done:,}{of} rows are done"
        said = f"{said}; {told}" if told else said
        if self._path is not None:
            said += f"; the same call goes on with what {self._path} has"
        return said

    # Rows.

    async def _feed(self) -> None:
        numbered, loop = enumerate(self._rows), asyncio.get_running_loop()
        try:
            while True:
                room = min(
                    self._at_once - len(self._tasks),
                    HELD_WINDOWS * self._at_once - self._outstanding,
                )
                if room <= 0:
                    self._freed.clear()
                    await self._freed.wait()
                    continue
                pulled, is_over = await loop.run_in_executor(
                    self._thread, self._pull, numbered, room
                )
                for each in pulled:
                    self._start(*each)
                if is_over:
                    break
        except Exception as error:
            self._fail(error)
        self._is_fed = True
        self._came.set()

    def _pull(
        self, rows: Iterator[tuple[int, Any]], room: int
    ) -> tuple[list[Pulled], bool]:
        """Some more rows, and whether these were the last."""
        found: list[Pulled] = []
        until = time.monotonic() + PULL_SECONDS
        while len(found) < min(room, LARGEST_BLOCK) and time.monotonic() < until:
            try:
                number, row = next(rows)
            except StopIteration:
                return found, True
            found.append((number, row, self._claim(row)))
        return found, False

    def _claim(self, row: Any) -> ClaimedRow | RequestError | None:
        if self._journal is None:
            return None
        try:
            return self._journal.claim(row_digest(row))
        except RequestError as error:
            return error

    def _start(
        self, number: int, row: Any, known: ClaimedRow | RequestError | None
    ) -> None:
        self._outstanding += 1
        if isinstance(known, RequestError):
            self._put(RowOutcome(number, row, error=known))
            return
        if known is not None and known.result is not None:
            self._put(RowOutcome(number, row, orjson.loads(known.result)))
            return
        calls = RowCalls(self._maker)
        if known is not None:
            calls = RowCalls(self._maker, known.id, known.calls)
        context = copy_context()
        context.run(CALL_WAY.set, calls)
        work = self._work(number, row, calls)
        task = context.run(asyncio.get_running_loop().create_task, work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._freed.set()

    async def _work(self, number: int, row: Any, calls: RowCalls) -> None:
        try:
            async with timeout(self._deadline) as limit:
                value = await self._function(row)
            if self._journal is not None:
                value = await self._kept(calls, value)
        except asyncio.CancelledError as error:
            if self._is_ended:
                raise
            self._put(RowOutcome(number, row, error=_in_row(error, number)))
        except (SystemExit, KeyboardInterrupt) as error:
            self._fail(error)
        except Exception as error:
            found: Exception = error
            if isinstance(error, TimeoutError) and limit.expired():
                found = DeadlineExceededError(
                    f"{self._name}() was not done within {self._deadline:g} s"
                )
            self._put(RowOutcome(number, row, error=_in_row(found, number)))
        else:
            self._put(RowOutcome(number, row, value))

    async def _kept(self, calls: RowCalls, value: Any) -> Any:
        """The value as it comes back from the journal, once it is there."""
        assert self._courier is not None
        said = as_json(value, self._name)
        if calls.is_changed and not self._is_change_told:
            self._is_change_told = True
            log.warning(
                "%s() asks for some rows what it did not ask when %s was written; that "
                "is asked anew",
                *(self._name, self._path),
            )
        waiter = Waiter(asyncio.get_running_loop().create_future())
        self._courier.put(RowResult(waiter, calls.row, said))
        await waiter.future
        return orjson.loads(said)

    # Outcomes.

    def _put(self, outcome: RowOutcome) -> None:
        self.done += 1
        self.failed += outcome.error is not None
        if not self._is_ordered:
            self._ready.append(outcome)
        else:
            self._held[outcome.number] = outcome
            while self._next in self._held:
                self._ready.append(self._held.pop(self._next))
                self._next += 1
        if self._ready:
            self._came.set()

    def _fail(self, error: BaseException) -> None:
        self.failure = self.failure or error
        self._came.set()


def _in_row(error: BaseException, number: int) -> BaseException:
    """The error with a note that names its row."""
    add_note(error, f"in row {number} of map_rows()")
    return error
