"""Answers in a file, for identical requests of later runs."""

import hashlib
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from modelserver.errors import BatchFileError
from modelserver.messaging.catalogue import Catalogue
from modelserver.runs.rows import Row
from modelserver.runs.sqlite_files import file_trouble, open_file

#: The bytes of a cache's file, at most, where nothing else is said.
MAX_BYTES = 4 * 2**30
#: The age of an answer, at most, where nothing else is said: thirty days.
MAX_AGE_SECONDS = 30 * 86_400.0
#: What SQLite's field application_id says of such a file.
KIND = 0x6D73_0002
#: Answers are written after so many of them, or so many seconds.
FLUSH_ANSWERS = 500
FLUSH_SECONDS = 1.0
#: Where a file is full, this share of its answers goes, the oldest.
DROPPED_SHARE = 0.1
SCHEMA = """
CREATE TABLE IF NOT EXISTS answers
    (id INTEGER PRIMARY KEY, key BLOB UNIQUE, made_at REAL, answer BLOB)
"""
#: Parameters that do not change what an engine answers.
NOT_ASKED = frozenset({"model", "deadline", "deadline_from"})
#: Sets of parameters that are remembered.
_MOST_REMEMBERED = 64

log = logging.getLogger(__name__)


class RequestKeys:
    """What identical requests share: model, parameters and payload."""

    def __init__(self, models: Callable[[], Catalogue]) -> None:
        self._models = models
        #: By identity of parameters, which are kept with it, so that it is theirs.
        self._known: dict[int, tuple[Mapping[str, Any], bytes]] = {}

    def key(self, row: Row) -> bytes:
        """The same for rows that ask the same of the same model."""
        known = self._known.get(id(row.parameters))
        if known is None:
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            known = row.parameters, self._asked(row.parameters)
            self._known[id(row.parameters)] = known
        said = orjson.dumps([row.task, row.payload], option=orjson.OPT_SORT_KEYS)
        return hashlib.blake2b(said + known[1], digest_size=16).digest()

    def _asked(self, parameters: Mapping[str, Any]) -> bytes:
        asked = {k: v for k, v in parameters.items() if k not in NOT_ASKED}
        models, name = self._models(), str(parameters.get("model"))
        entry = models.entry(name)
        of_model: list[Any] = [name, models.defaults.get("max_tokens")]
        if entry is not None:
            of_model += [entry.path, entry.extra_args, entry.command, entry.sampling]
        return orjson.dumps([of_model, asked], option=orjson.OPT_SORT_KEYS)


@dataclass(frozen=True, slots=True)
class CacheFile:
    """Where answers are kept, and how many of them."""

    path: Path
    max_bytes: int = MAX_BYTES
    max_age_seconds: float = MAX_AGE_SECONDS


class AnswerCache:
    """A file of answers, which several programs may share. For one thread."""

    def __init__(self, file: CacheFile) -> None:
        self._where = file
        with self._trouble():
            self._file = open_file(file.path, KIND, SCHEMA)
        self._new: dict[bytes, bytes] = {}
        self._flushed_at = time.monotonic()
        self._is_broken = False

    def _trouble(self) -> Any:
        return file_trouble(self._where.path, "cache")

    def find(self, key: bytes) -> Any:
        """The answer that is kept, None where there is none."""
        found = self._new.get(key)
        if found is None and not self._is_broken:
            since = time.time() - self._where.max_age_seconds
            ask = "SELECT answer FROM answers WHERE key=? AND made_at>=?"
            with self._trouble():
                row = self._file.execute(ask, (key, since)).fetchone()
            found = row[0] if row else None
        return None if found is None else orjson.loads(found)

    def add(self, key: bytes, value: Any) -> None:
        """Keep an answer; it is written with others."""
        self._new[key] = orjson.dumps(value)
        is_time = time.monotonic() - self._flushed_at > FLUSH_SECONDS
        if is_time or len(self._new) >= FLUSH_ANSWERS:
            self.flush()

    def flush(self) -> None:
        """Write what is new. A file that cannot be written is told, and left alone."""
        self._flushed_at = time.monotonic()
        new, self._new = self._new, {}
        if not new or self._is_broken:
            return
        try:
            with self._trouble():
                self._write(new)
        except BatchFileError as error:
            self._is_broken = True
            log.warning("answers are not kept any more: %s", error)

    def _write(self, new: Mapping[bytes, bytes]) -> None:
        now = time.time()
        say = "INSERT OR REPLACE INTO answers (key, made_at, answer) VALUES (?, ?, ?)"
        try:
            self._file.execute("BEGIN IMMEDIATE")
            self._file.executemany(say, ((key, now, said) for key, said in new.items()))
            self._drop_old(now - self._where.max_age_seconds)
            while self._bytes() > self._where.max_bytes and self._drop_some():
                pass
            self._file.commit()
        except sqlite3.Error:
            self._file.rollback()
            raise

    def _drop_old(self, before: float) -> None:
        ask = "SELECT id FROM answers WHERE made_at>=? ORDER BY id LIMIT 1"
        first = self._file.execute(ask, (before,)).fetchone()
        if first is not None:
            self._file.execute("DELETE FROM answers WHERE id<?", first)

    def _drop_some(self) -> bool:
        """Drop the oldest; whether there was any."""
        ask = "SELECT min(id), max(id) FROM answers"
        first, last = self._file.execute(ask).fetchone()
        if first is None:
            return False
        upto = first + int((last - first) * DROPPED_SHARE)
        self._file.execute("DELETE FROM answers WHERE id<=?", (upto,))
        return True

    def _bytes(self) -> int:
        def ask(name: str) -> int:
            return int(self._file.execute(f"PRAGMA {name}").fetchone()[0])

        return (ask("page_count") - ask("freelist_count")) * ask("page_size")

    def close(self) -> None:
        """Write what is new, and leave the file."""
        self.flush()
        self._file.close()
