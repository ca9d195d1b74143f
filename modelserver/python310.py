"""What Python 3.10, on which a pipeline may run, lacks of the standard library."""

import asyncio
import sqlite3
import sys

if sys.version_info >= (3, 11):
    import tomllib
    from asyncio import timeout
    from enum import StrEnum
else:
    from collections.abc import AsyncIterator
    from contextlib import asynccontextmanager
    from enum import Enum

    import async_timeout
    import tomli as tomllib

    class StrEnum(str, Enum):
        """Texts by name; each is its text wherever it is shown."""

        __str__ = str.__str__

        def __format__(self, form: str) -> str:
            return str.__format__(self, form)

    class Limit:
        """Whether a time limit has passed, as asyncio.Timeout tells it."""

        def __init__(self, limit: async_timeout.Timeout) -> None:
            self._limit = limit

        def expired(self) -> bool:
            """Whether what it limits was cut short."""
            return bool(self._limit.expired)

    @asynccontextmanager
    async def timeout(seconds: float | None) -> AsyncIterator[Limit]:
        """Raise TimeoutError where this takes longer."""
        try:
            async with async_timeout.timeout(seconds) as limit:
                yield Limit(limit)
        except asyncio.TimeoutError as error:
            raise TimeoutError(*error.args) from error


__all__ = ["StrEnum", "add_note", "cancelling", "sqlite_code", "timeout", "tomllib"]

#: SQLite's texts of the result codes that are told apart.
SQLITE_CODES = {
    "database is locked": 5,
    "database table is locked": 6,
    "attempt to write a readonly database": 8,
    "database or disk is full": 13,
    "unable to open database file": 14,
}


def add_note(error: BaseException, note: str) -> None:
    """Say more of an error below its traceback, where this Python shows notes."""
    if sys.version_info >= (3, 11):
        error.add_note(note)
    else:
        vars(error).setdefault("__notes__", []).append(note)


def cancelling(task: "asyncio.Task[object]") -> int:
    """How often a task was asked to end; 0 where this Python does not count it."""
    if sys.version_info >= (3, 11):
        return task.cancelling()
    return 0


def sqlite_code(error: sqlite3.OperationalError) -> int:
    """SQLite's primary result code of an error, 0 if unknown."""
    if sys.version_info >= (3, 11):
        return error.sqlite_errorcode & 0xFF
    return SQLITE_CODES.get(str(error).partition(":")[0], 0)
