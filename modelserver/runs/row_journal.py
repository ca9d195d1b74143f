"""What a run keeps in a file: results of rows, and answers of those not done yet.

A row is known by what it says, whatever its place: the third row of the same text is
the third one that was seen. Whoever opens a journal again begins another session.
"""

import secrets
import threading
import uuid
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import orjson

from modelserver.errors import BatchFileError
from modelserver.runs.rows import Answered
from modelserver.runs.sqlite_files import file_trouble, open_file

#: What SQLite's field application_id says of such a file.
KIND = 0x6D73_0001
#: Calls of one session have numbers below this power of two, after its own.
_SESSION_BITS = 32
#: By what the names of their runs begin with: the calls that keep a journal.
CALLS = {"rows": "map_rows", "map": "map_prompts", "embed": "embed_texts"}
#: Scripts of Redis count exactly up to so many bits.
_NUMBER_BITS = 53
SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rows
    (id INTEGER PRIMARY KEY, digest BLOB, session INTEGER, result BLOB);
CREATE INDEX IF NOT EXISTS rows_by_digest ON rows (digest, session, id);
CREATE TABLE IF NOT EXISTS calls
    (number INTEGER PRIMARY KEY, row INTEGER, key BLOB, answer BLOB);
CREATE INDEX IF NOT EXISTS calls_by_row ON calls (row)
"""


@dataclass(frozen=True, slots=True)
class OldCall:
    """A call of an earlier session."""

    #: The number that it was sent under.
    number: int
    #: Its answer as JSON, None where none is kept.
    answer: bytes | None


@dataclass(frozen=True, slots=True)
class ClaimedRow:
    """A row of this session, with what is known of it."""

    id: int
    #: Its result as JSON, None where it is not done.
    result: bytes | None = None
    #: By what they ask: its calls that were sent before.
    calls: Mapping[bytes, OldCall] = field(default_factory=dict)


class AnsweredLane(Protocol):
    """What a journal asks of the way to the fleet."""

    def receive(self, timeout: float) -> list[Answered]:
        """What was answered since; waits for the first so many seconds."""

    def find_forgotten(self, numbers: Iterable[int]) -> list[int]:
        """Those rows that were answered and whose answers were settled since."""


class RowJournal:
    """One journal, which one program has at a time. For several threads.

    ``kind`` is the call that it is of, by what the name of its run begins with.
    """

    def __init__(self, path: Path, kind: str = "rows") -> None:
        self.path = path
        self._lock = threading.Lock()
        with self._trouble():
            self._file = open_file(path, KIND, SCHEMA, is_shared=False)
        #: Names the run in Redis.
        self.run = self._fact("run", f"{kind}-{uuid.uuid4().hex[:12]}")
        if (found := self.run.partition("-")[0]) != kind:
            self._file.close()
            raise BatchFileError(
                f"{path} is a journal of {CALLS.get(found, found)}(), not of "
                f"{CALLS[kind]}(); choose another"
            )
        session = int(self._fact("session", "0")) + 1
        self._write_fact("session", str(session))
        self._session = session
        # By chance: a copy of the journal must not give the numbers of its original.
        base = secrets.randbelow(1 << (_NUMBER_BITS - _SESSION_BITS))
        #: The first number of this session's calls.
        self.first_number = base << _SESSION_BITS
        self.sync()

    def _trouble(self) -> AbstractContextManager[None]:
        return file_trouble(self.path, "journal")

    # Facts.

    def _fact(self, name: str, default: str) -> str:
        """What is kept under this name; the first time it is the default."""
        with self._lock, self._trouble():
            ask = "SELECT value FROM facts WHERE name=?"
            found = self._file.execute(ask, (name,)).fetchone()
        if found is None:
            self._write_fact(name, default)
            return default
        return str(found[0])

    def _write_fact(self, name: str, value: str) -> None:
        with self._lock, self._trouble():
            say = "INSERT OR REPLACE INTO facts VALUES (?, ?)"
            self._file.execute(say, (name, value))

    def is_changed(self, name: str, value: str) -> bool:
        """Whether another value was kept under this name; this one is from now on."""
        is_changed = self._fact(name, value) != value
        if is_changed:
            self._write_fact(name, value)
        return is_changed

    # Rows.

    def claim(self, digest: bytes) -> ClaimedRow:
        """The first row of this content that is not claimed yet, or a new one."""
        with self._lock, self._trouble():
            found = self._file.execute(
                "SELECT id, result FROM rows WHERE digest=? AND session<? "
                "ORDER BY session, id LIMIT 1",
                (digest, self._session),
            ).fetchone()
            if found is None:
                add = "INSERT INTO rows (digest, session) VALUES (?, ?)"
                made = self._file.execute(add, (digest, self._session)).lastrowid
                return ClaimedRow(int(made or 0))
            row, result = found
            take = "UPDATE rows SET session=? WHERE id=?"
            self._file.execute(take, (self._session, row))
            if result is not None:
                return ClaimedRow(row, result)
            ask = "SELECT key, number, answer FROM calls WHERE row=?"
            calls = {
                key: OldCall(number, answer)
                for key, number, answer in self._file.execute(ask, (row,))
            }
            return ClaimedRow(row, None, calls)

    def add_results(self, results: Iterable[tuple[int, bytes]]) -> None:
        """Keep rows' results by id; their calls need not be known any more."""
        with self._lock, self._trouble():
            for row, result in results:
                keep = "UPDATE rows SET result=? WHERE id=?"
                self._file.execute(keep, (result, row))
                self._file.execute("DELETE FROM calls WHERE row=?", (row,))

    def count_others(self) -> tuple[int, int]:
        """Rows that were not claimed by this session, and how many of them are done."""
        with self._lock, self._trouble():
            ask = "SELECT count(*), count(result) FROM rows WHERE session<?"
            rows, done = self._file.execute(ask, (self._session,)).fetchone()
        return int(rows), int(done)

    # Calls.

    def add_calls(self, calls: Iterable[tuple[int, int, bytes]]) -> None:
        """Note what is to be sent: number, row and key of each."""
        with self._lock, self._trouble():
            say = "INSERT INTO calls (number, row, key) VALUES (?, ?, ?)"
            self._file.executemany(say, calls)

    def add_answers(self, answers: Iterable[tuple[int, bytes]]) -> None:
        """Keep answers by the numbers of their calls."""
        with self._lock, self._trouble():
            say = "UPDATE calls SET answer=? WHERE number=?"
            self._file.executemany(say, ((value, number) for number, value in answers))

    def keep(self, answered: Iterable[Answered]) -> None:
        """Keep what calls came to, by their numbers; one that failed is forgotten."""
        found = list(answered)
        good = [each for each in found if each.error is None]
        self.add_answers((each.number, orjson.dumps(each.value)) for each in good)
        self.drop_calls(each.number for each in found if each.error is not None)
        self.commit()

    def drop_calls(self, numbers: Iterable[int]) -> None:
        """Forget calls: who makes them again asks anew."""
        with self._lock, self._trouble():
            say = "DELETE FROM calls WHERE number=?"
            self._file.executemany(say, ((number,) for number in numbers))

    def find_call(self, number: int) -> OldCall | None:
        """A call of an earlier session as it stands now, None if it was dropped."""
        with self._lock, self._trouble():
            ask = "SELECT answer FROM calls WHERE number=?"
            found = self._file.execute(ask, (number,)).fetchone()
        return None if found is None else OldCall(number, found[0])

    def find_unanswered(self) -> list[int]:
        """The numbers of calls that were sent and have no answer."""
        with self._lock, self._trouble():
            ask = "SELECT number FROM calls WHERE answer IS NULL"
            return [number for (number,) in self._file.execute(ask)]

    def collect(self, lane: "AnsweredLane") -> list[int]:
        """Keep what came since an earlier session; the numbers of these answers.

        Raises StoreUnreachableError.
        """
        if not (left := self.find_unanswered()):
            return []
        numbers: list[int] = []
        while found := lane.receive(0.0):
            self.keep(found)
            numbers += [each.number for each in found]
        self.drop_calls(lane.find_forgotten(left))
        self.commit()
        return numbers

    # The file.

    def commit(self) -> None:
        """Have it outlive the program."""
        with self._lock, self._trouble():
            self._file.commit()

    def sync(self) -> None:
        """Have what was written outlive the machine."""
        with self._lock, self._trouble():
            self._file.commit()
            self._file.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def close(self) -> None:
        """Write what is left, and let other programs have it."""
        with self._lock, self._trouble():
            self._file.commit()
            self._file.close()
