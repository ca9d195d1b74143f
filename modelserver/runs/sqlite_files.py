"""Files of SQLite that runs keep: opened, and their errors in words."""

import errno
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelserver.errors import BatchFileError
from modelserver.python310 import sqlite_code
from modelserver.runs.files.problems import file_error

#: Seconds that one program waits for another that writes the same file.
BUSY_SECONDS = 10.0
#: Seconds before a file that another program is just opening is opened again.
AGAIN_SECONDS = 0.02
#: SQLite's primary result codes, as its documentation numbers them.
BUSY, LOCKED, READ_ONLY, FULL, CANNOT_OPEN = 5, 6, 8, 13, 14


@contextmanager
def file_trouble(path: Path, what: str) -> Iterator[None]:
    """Turn SQLite's errors into BatchFileError, which says what the file is."""
    try:
        yield
    except sqlite3.OperationalError as error:
        code = sqlite_code(error)
        if code in (BUSY, LOCKED):
            told = (
                f"{path} is used by another program; end it, or choose another {what}"
            )
        elif code == FULL:
            told = f"cannot write {path}: no room on the disk; make room and go on"
        elif code == CANNOT_OPEN:
            told = f"cannot open {path}; correct the path or its permissions"
            if path.is_dir():
                told = f"cannot open {path}: it is a folder; name a file in it"
        elif code == READ_ONLY:
            told = f"cannot write {path}; correct its permissions, or choose another"
        else:
            told = f"cannot use {path}: {error}"
        raise BatchFileError(told) from error
    except OSError as error:
        raise file_error("open", path, error) from None
    except sqlite3.DatabaseError as error:
        raise BatchFileError(
            f"{path} is no {what} ({error}); choose another, or move it away"
        ) from error


def open_file(
    path: Path, kind: int, schema: str, is_shared: bool = True
) -> sqlite3.Connection:
    """A file of this kind, made where it is not there; for any thread.

    Unless ``is_shared`` no other program can open it until it is closed.
    """
    # A folder that is not there may be of a disk that is not mounted yet.
    if not path.parent.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    patience = BUSY_SECONDS if is_shared else 0.0
    until = time.monotonic() + patience
    while True:
        try:
            return _open_once(path, kind, schema, patience)
        except sqlite3.OperationalError as error:
            # While a file's journal changes, SQLite refuses others without a wait.
            if sqlite_code(error) != BUSY or time.monotonic() >= until:
                raise
            time.sleep(AGAIN_SECONDS)


def _open_once(
    path: Path, kind: int, schema: str, patience: float
) -> sqlite3.Connection:
    file = sqlite3.connect(path, timeout=patience, check_same_thread=False)
    try:
        if not patience:
            file.execute("PRAGMA locking_mode=EXCLUSIVE")
        file.execute("PRAGMA journal_mode=WAL")
        file.execute("PRAGMA synchronous=NORMAL")
        file.execute("BEGIN IMMEDIATE")
        (found,) = file.execute("PRAGMA application_id").fetchone()
        (tables,) = file.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if found != kind and tables:
            raise sqlite3.DatabaseError("it is another file of SQLite")
        for statement in schema.split(";"):
            file.execute(statement)
        file.execute(f"PRAGMA application_id={kind}")
        file.commit()
    except BaseException:
        file.close()
        raise
    return file
