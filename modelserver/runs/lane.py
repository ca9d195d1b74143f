"""The way of a run's rows to the fleet, and of their answers back.

Rows travel in bundles, many in one round trip; their answers come in the run's own
stream, and stay there until they are settled. What a row's number has been sent for is
kept in Redis, so that no row is sent twice.
"""

import asyncio
import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any, TypeVar

from celery import Celery
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from modelserver.errors import ModelserverError, StoreFullError, StoreUnreachableError
from modelserver.messaging.bundles import CANCELLED, read_answer
from modelserver.operations.cancelling import cancel_requests, end_overdue_rows
from modelserver.runs.cutting import (
    MOST_BUNDLE_ROWS,
    PARTS_OF_ENGINE,
    UNKNOWN_BUNDLE_ROWS,
    CheckedRow,
    RowChecks,
    Sender,
    cut,
)
from modelserver.runs.rows import Answered, Row, RowError
from modelserver.store import Store, connect
from modelserver.store.batch import MOST_BYTES
from modelserver.store.fleet.engines import read_engines
from modelserver.store.keys import list_name, priority_step
from modelserver.store.runs.feeding import (
    SentBundle,
    add_send,
    cancel_round,
    find_answered,
    find_unsent,
    forget_answers,
    read_answers_since,
    read_round,
)
from modelserver.values import EngineReport

T = TypeVar("T")
#: Whose it is, its model, and the bundle.
PlacedBundle = tuple[str, str, SentBundle]

#: Most bundles that one script sends.
MOST_BUNDLES = 64
#: The engines are read again after so many seconds.
ENGINES_SECONDS = 2.0
#: After so many seconds without an answer the server is asked whether it has lost rows.
SILENCE_SECONDS = 5.0
#: Rows are looked for in the queues that are overdue by so many seconds, no oftener
#: than that.
OVERDUE_SECONDS = 2.0
#: One wait for answers lasts no longer, in seconds.
LONGEST_WAIT_SECONDS = 1.0
#: Where the stream of a round begins.
_BEGINNING = "0-0"


class Lane:
    """What one run has under way. Not for several threads, but for ``cancel``.

    ``deadline`` is when all rows are due, in seconds since the epoch; a row's own
    parameter ``deadline`` counts from when it is sent, and the fleet's default does not
    count. What a run left in Redis is kept for a week. A run of ``weight`` n is n
    submitters, and so gets n shares of each queue.
    """

    def __init__(
        self,
        app: Celery,
        run: str,
        *,
        priority: int | None = None,
        submitter: str | None = None,
        deadline: float | None = None,
        weight: int = 1,
    ) -> None:
        self._settings = app.modelserver_tasks[0].settings
        self._catalogue = app.modelserver_models
        self._checks = RowChecks(app.modelserver_models)
        #: The run's name.
        self.run = run
        name = f"{submitter}:{run}" if submitter else run
        more = (f"{name}#{number}" for number in range(2, weight + 1))
        self._submitters = tuple(map(list_name, (name, *more)))
        self._turns = cycle(self._submitters)
        self._priority = priority
        self._due = deadline
        #: Sent and not answered, by number.
        self._open: dict[int, CheckedRow] = {}
        #: Answered and not settled: rounds and ids by number.
        self._unsettled: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)
        #: Rows that are wrong, until they are told.
        self._refused: list[Answered] = []
        #: By number: when rows under way are due that have a deadline.
        self._dues: dict[int, float] = {}
        self._models: set[str] = set()
        self._store: Store | None = None
        self._round = 0
        #: By round, from the first on: the last answer that was seen.
        self._since: list[str] = []
        self._engines: tuple[float, list[EngineReport]] = (0.0, [])
        self._heard_at = time.monotonic()
        self._ended_at = 0.0

    # Rows.

    def send(self, rows: Sequence[Row]) -> None:
        """Send rows; what is under way or answered is not run again.

        A row that is wrong is not sent: ``receive`` gives its error. Raises
        StoreUnreachableError, StoreFullError: then some may have been sent, and all may
        be sent again.
        """
        checked = []
        for row in rows:
            if row.number in self._open:
                continue
            try:
                checked.append(self._checks.check(row))
            except (StoreUnreachableError, StoreFullError):
                raise
            except ModelserverError as error:
                self._refused.append(Answered(row.number, error=RowError.of(error)))
        self._heard_at = time.monotonic()
        with self._reachable() as store:
            if not self._round:
                self._begin(store)
            try:
                self._send(store, checked)
            except ResponseError as error:
                if "CANCELLED the run" not in str(error):
                    raise
                self._begin(store)
                self._send(store, checked)

    def _begin(self, store: Store) -> None:
        """Go on with the run's round, or begin the next if that is cancelled."""
        self._round = read_round(store, self.run, begin=True)
        missing = self._round - len(self._since)
        self._since += [_BEGINNING] * missing

    def _send(self, store: Store, rows: Sequence[CheckedRow]) -> None:
        while rows:
            bundles = [*self._cut(rows)]
            self._models |= {model for _, model, _ in bundles}
            by_number = {each.row.number: each for each in rows}
            again = self._put(store, bundles)
            self._open |= by_number
            now = time.time()
            for each in rows:
                if (due := self._sender("").due_of(each.checked, now)) is not None:
                    self._dues[each.row.number] = due
            # Of a bundle with rows that were sent before, the others are sent anew.
            rows = [by_number[number] for number in again]

    def _sender(self, submitter: str) -> Sender:
        return Sender(self.run, self._round, submitter, self._priority, self._due)

    def _cut(self, rows: Sequence[CheckedRow]) -> Iterator[PlacedBundle]:
        """Bundles of equal parts of the rows, each part with a submitter of its own."""
        size = math.ceil(len(rows) / len(self._submitters))
        for start in range(0, len(rows), size):
            submitter, part = next(self._turns), rows[start : start + size]
            for model, bundle in cut(part, self._sender(submitter), self._most_rows):
                yield submitter, model, bundle

    def _put(self, store: Store, bundles: Sequence[PlacedBundle]) -> list[int]:
        """Queue bundles; the rows that were not, and were not sent before either."""
        parts = list(_portions(bundles))
        step = priority_step(self._priority)
        with store.client.pipeline(transaction=False) as pipe:
            for submitter, model, part in parts:
                run = (self.run, self._round)
                add_send(pipe, store, run, (model, step), submitter, part)
            replies = pipe.execute()
        again = []
        for (_, _, part), refused in zip(parts, replies, strict=True):
            for place, *known in refused:
                again += [n for n in part[place].numbers if n not in known]
        return again

    def _most_rows(self, model: str) -> int:
        limits = [
            engine.limit
            for engine in self._read_engines(ENGINES_SECONDS)
            if engine.model == model and engine.is_given_work
        ]
        if not limits:
            return UNKNOWN_BUNDLE_ROWS
        return min(MOST_BUNDLE_ROWS, max(1, min(limits) // PARTS_OF_ENGINE))

    # Answers.

    def receive(self, timeout: float) -> list[Answered]:
        """What was answered since; waits for the first so many seconds.

        After a crash it comes again, until ``settle``. Raises StoreUnreachableError.
        """
        ends_at = time.monotonic() + timeout
        with self._reachable() as store:
            if not self._since:
                self._since = [_BEGINNING] * read_round(store, self.run)
            while True:
                left = 0.0 if self._refused else ends_at - time.monotonic()
                found = self._look(store, min(left, LONGEST_WAIT_SECONDS))
                if found or self._refused:
                    refused, self._refused = self._refused, []
                    return refused + found
                self._find_lost(store)
                self._end_overdue()
                if time.monotonic() >= ends_at:
                    return []
                if not self._since:
                    time.sleep(max(0.0, ends_at - time.monotonic()))

    def _look(self, store: Store, seconds: float) -> list[Answered]:
        if not self._since:
            return []
        milliseconds = max(0, int(1000 * seconds))
        came = read_answers_since(store, self.run, self._since, milliseconds)
        found = []
        for number, entry, row, stored in came:
            self._since[number - 1] = entry
            value, error = read_answer(stored)
            is_old = 0 < number < self._round
            if error and error[0] == CANCELLED and is_old and row in self._open:
                forget_answers(store, self.run, [(number, entry)])
                continue  # It was sent anew since.
            self._unsettled[row].append((number, entry))
            self._open.pop(row, None)
            self._dues.pop(row, None)
            told = RowError(*error) if error else None
            found.append(Answered(row, value, told))
        if came:
            self._heard_at = time.monotonic()
        return found

    def _find_lost(self, store: Store) -> None:
        """Send again what the server has lost, with its memory or in a failover."""
        if time.monotonic() - self._heard_at < SILENCE_SECONDS or not self._open:
            return
        self._heard_at = time.monotonic()
        if read_round(store, self.run) < self._round:
            self._round, self._since = 0, []
            self._begin(store)
        run = (self.run, self._round)
        lost = find_unsent(store, run, [*self._open])
        if lost:
            self._send(store, [self._open[number] for number in lost])

    def _end_overdue(self) -> None:
        """End the rows that are overdue in a queue, where no worker takes them."""
        now = time.monotonic()
        if now - max(self._heard_at, self._ended_at) < OVERDUE_SECONDS:
            return
        if min(self._dues.values(), default=math.inf) < time.time() - OVERDUE_SECONDS:
            self._ended_at = now
            models = sorted(self._models)
            for submitter in self._submitters:
                self._run(end_overdue_rows(self._settings, models, submitter))

    def settle(self, numbers: Iterable[int]) -> None:
        """Forget answers that the caller has written down."""
        entries = [
            entry for number in numbers for entry in self._unsettled.pop(number, ())
        ]
        if entries:
            with self._reachable() as store:
                forget_answers(store, self.run, entries)

    def find_forgotten(self, numbers: Iterable[int]) -> list[int]:
        """Those rows that were answered and whose answers were settled since.

        To be asked once ``receive`` has given all that is there.
        """
        left, found = set(numbers), []
        with self._reachable() as store:
            for number in range(read_round(store, self.run), 0, -1):
                run = (self.run, number)
                sent = left - set(find_unsent(store, run, [*left]))
                left -= sent
                found += find_answered(store, run, [*sent])
        return [number for number in found if number not in self._unsettled]

    # The whole run.

    def cancel(self) -> int:
        """Take back the rows that have not begun; returns how many waited in a queue.

        Each ends as "cancelled". What is sent from now on is a new round.
        """
        with self._reachable() as store:
            number = self._round or read_round(store, self.run)
            if not number:
                return 0
            cancel_round(store, self.run, number)
        models = self._models or {entry.queue for entry in self._catalogue().models}
        waiting = 0
        for submitter in self._submitters:
            work = cancel_requests(self._settings, sorted(models), submitter, False)
            waiting += self._run(work).waiting
        return waiting

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it in a thread: a notebook's own has a loop already."""
        found: list[T | Exception] = []

        def call() -> None:
            try:
                found.append(asyncio.run(work))
            except Exception as error:
                found.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        result = found[0]
        if isinstance(result, RedisError):
            with self._reachable():
                raise result
        if isinstance(result, Exception):
            raise result
        return result

    def places(self) -> dict[str, int]:
        """How many requests the ready engines of each model take at once."""
        total: Counter[str] = Counter()
        for engine in self._read_engines(0.0):
            if engine.is_given_work:
                total[engine.model] += engine.limit
        return dict(total)

    def engines(self) -> dict[str, tuple[int, int]]:
        """By model: how many of its engines are given work, and how many there are."""
        ready: Counter[str] = Counter()
        whole: Counter[str] = Counter()
        for engine in self._read_engines(ENGINES_SECONDS):
            ready[engine.model] += engine.is_given_work
            whole[engine.model] += 1
        return {model: (ready[model], number) for model, number in whole.items()}

    def _read_engines(self, seconds: float) -> list[EngineReport]:
        """All engines, by a look no older than that."""
        read_at, engines = self._engines
        if time.monotonic() - read_at > seconds:
            with self._reachable() as store:
                engines = [*read_engines(store).values()]
            self._engines = (time.monotonic(), engines)
        return engines

    @contextmanager
    def _reachable(self) -> Iterator[Store]:
        """The store. Raises StoreUnreachableError, StoreFullError."""
        if self._store is None:
            self._store = connect(self._settings)
        try:
            with self._store.reachable():
                yield self._store
        except OutOfMemoryError as error:
            raise StoreFullError(
                f"rows were not accepted: the memory of Redis at {self._store.url} is "
                f"short ({error}); wait until answers are settled, or raise its "
                "maxmemory"
            ) from error


def _portions(
    bundles: Sequence[PlacedBundle],
) -> Iterator[tuple[str, str, list[SentBundle]]]:
    """Bundles of one submitter and model that one script sends."""
    part: list[SentBundle] = []
    at, size = ("", ""), 0
    for *place, bundle in bundles:
        size += len(bundle.message)
        is_full = len(part) >= MOST_BUNDLES or size > MOST_BYTES
        if part and (is_full or (*place,) != at):
            yield *at, part
            part, size = [], len(bundle.message)
        at = (place[0], place[1])
        part.append(bundle)
    if part:
        yield *at, part
