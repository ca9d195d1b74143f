"""A lane whose answers are kept in a journal, so that the same call goes on."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import orjson
from celery import Celery
from typing_extensions import Self

from modelserver.errors import ModelserverError
from modelserver.runs.answer_cache import NOT_ASKED, RequestKeys
from modelserver.runs.feeder import RowLane
from modelserver.runs.lane import Lane
from modelserver.runs.row_journal import AnsweredLane, RowJournal
from modelserver.runs.rows import Answered, Row

#: What is in the journal is made durable, and then forgotten by Redis, so often.
SYNC_SECONDS = 1.0
#: What tells a row's one call from no other.
_ONLY = b"1"

log = logging.getLogger(__name__)


class KeptLane(RowLane, AnsweredLane, Protocol):
    """The way to the fleet, with all that a journal asks of it."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """A row that was claimed in the journal."""

    #: The number that its caller knows it by.
    number: int
    #: The journal's id of the row.
    id: int
    #: The number that it is sent under.
    call: int


class JournaledLane:
    """Rows that the journal has answers to are not sent; others are, once.

    ``lane`` makes the way to the fleet, for the name of the run that the journal says.
    A row is known by what it asks, ``what`` are rows to the caller, and ``asked`` what
    they share. ``open`` it first, and ``close`` it.
    """

    def __init__(
        self,
        path: Path,
        kind: str,
        what: str,
        asked: Mapping[str, Any],
        keys: RequestKeys,
        lane: Callable[[str], KeptLane],
    ) -> None:
        self._path = path
        self._kind = kind
        self._what = what
        self._asked = asked
        self._keys = keys
        self._make_lane = lane
        #: Names the run in Redis, once it is open.
        self.run = ""
        #: Rows that are claimed and not answered, by the caller's numbers.
        self._claimed: dict[int, _Sent] = {}
        #: Those of them that were sent, by the numbers that they were sent under.
        self._waiting: dict[int, _Sent] = {}
        #: What the journal has answered.
        self._ready: list[Answered] = []
        self._unsettled: list[int] = []
        self._synced_at = time.monotonic()

    @classmethod
    def of(
        cls,
        app: Celery,
        path: Path | None,
        of: tuple[str, str],
        asked: Mapping[str, Any],
        priority: int | None,
    ) -> Self | None:
        """The lane of a call with this journal, None without one.

        ``of`` is what the names of its runs begin with, and what its rows are called.
        """
        if path is None:
            return None
        make = partial(Lane, app, priority=priority)
        return cls(path, *of, asked, RequestKeys(app.modelserver_models), make)

    def told(self, said: str) -> str:
        """How a run ended early, and what becomes of it."""
        return f"{said}; the same call goes on with what {self._path} has"

    def open(self) -> None:
        """Open the journal, and collect what came since an earlier session.

        Raises BatchFileError, StoreUnreachableError.
        """
        self._journal = RowJournal(self._path, self._kind)
        self.run = self._journal.run
        self._lane = self._make_lane(self.run)
        asked = {k: v for k, v in self._asked.items() if k not in NOT_ASKED - {"model"}}
        said = orjson.dumps(asked, option=orjson.OPT_SORT_KEYS).decode()
        if self._journal.is_changed("asked", said):
            log.warning(
                "%s was written with other parameters; what was answered with those "
                "stays in it, and is asked anew",
                self._path,
            )
        self._next = self._journal.first_number
        self._unsettled += self._journal.collect(self._lane)

    def send(self, rows: Sequence[Row]) -> None:
        """Send what the journal has no answer to."""
        new, sent = [], []
        for row in rows:
            known = self._claimed.get(row.number)
            if known is None:
                known, is_new = self._claim(row)
                if is_new:
                    new.append((known.call, known.id, _ONLY))
            if known.call in self._waiting:
                sent.append(replace(row, number=known.call))
        self._journal.add_calls(new)
        self._journal.commit()
        if sent:
            self._lane.send(sent)

    def _claim(self, row: Row) -> tuple[_Sent, bool]:
        """The row as the journal knows it, and whether it was not sent before."""
        found = self._journal.claim(self._keys.key(row))
        call = found.calls.get(_ONLY)
        answer = found.result or (call.answer if call else None)
        number = call.number if call else self._next
        sent = self._claimed[row.number] = _Sent(row.number, found.id, number)
        if answer is not None:
            self._ready.append(Answered(row.number, orjson.loads(answer)))
            return sent, False
        self._waiting[number] = sent
        self._next += call is None
        return sent, call is None

    def receive(self, timeout: float) -> list[Answered]:
        """What the journal has, and what was answered since."""
        if self._waiting:
            found = self._lane.receive(0.0 if self._ready else timeout)
            self._ready += self._kept(found)
        ready, self._ready = self._ready, []
        for each in ready:
            self._claimed.pop(each.number, None)
        return ready

    def _kept(self, found: Sequence[Answered]) -> list[Answered]:
        """Those that the caller waits for, once all are in the journal."""
        self._unsettled += [each.number for each in found]
        told, results, others = [], [], []
        for each in found:
            if sent := self._waiting.pop(each.number, None):
                told.append(replace(each, number=sent.number))
            if sent and each.error is None:
                results.append((sent.id, orjson.dumps(each.value)))
            else:
                others.append(each)
        self._journal.add_results(results)
        self._journal.keep(others)
        return told

    def settle(self, numbers: Iterable[int]) -> None:
        """Have answers forgotten now and then, once the journal has them for good."""
        if time.monotonic() - self._synced_at > SYNC_SECONDS:
            self._sync()

    def _sync(self) -> None:
        self._synced_at = time.monotonic()
        if self._unsettled:
            self._journal.sync()
            self._lane.settle(self._unsettled)
            self._unsettled = []

    def cancel(self) -> int:
        """Take back what has not begun, and keep what came."""
        waited = self._lane.cancel()
        self._kept(self._lane.receive(0.0))
        return waited

    def places(self) -> dict[str, int]:
        """How many requests the ready engines of each model take at once."""
        return self._lane.places()

    def engines(self) -> dict[str, tuple[int, int]]:
        """By model: how many of its engines are given work, and how many there are."""
        return self._lane.engines()

    def close(self, is_over: bool) -> None:
        """Make all durable and leave the file. At the end rows are told that are gone.

        Does not raise where Redis is not reached: what it has is collected next time.
        """
        with suppress(ModelserverError):
            self._sync()
        rows, done = self._journal.count_others()
        if rows and is_over:
            log.warning(
                "%s has %s %s that are not among these, %s of them answered; they stay "
                "in it",
                *(self._path, f"{rows:,}", self._what, f"{done:,}"),
            )
        self._journal.close()
