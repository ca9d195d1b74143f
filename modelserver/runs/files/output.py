"""Files that are only ever appended to, and what stands in them already."""

import fcntl
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import orjson

from modelserver.errors import BatchFileError
from modelserver.runs.files.problems import OutputBusyError, file_error

#: Bytes that are read and written at once.
BLOCK_BYTES = 2**20
#: Bytes at a line's begin in which the number of its row stands.
_HEAD_BYTES = 200
#: What a line that holds a whole object ends with.
_END = b"}\n"
#: How files are called that are packed, or tables.
_NOT_PLAIN = (".gz", ".zst", ".zstd", ".csv", ".parquet")


class RowSet:
    """Which rows of a run: one bit each.

    >>> rows = RowSet(10)
    >>> rows.add(7), rows.add(7), 7 in rows, 6 in rows, len(rows)
    (True, False, True, False, 1)
    """

    def __init__(self, size: int) -> None:
        self._bits = bytearray((size + 7) // 8)
        self._count = 0
        self.size = size

    def add(self, number: int) -> bool:
        """Whether it was not there."""
        if number in self:
            return False
        self._bits[number >> 3] |= 1 << (number & 7)
        self._count += 1
        return True

    def __contains__(self, number: int) -> bool:
        return bool(self._bits[number >> 3] & (1 << (number & 7)))

    def __len__(self) -> int:
        return self._count

    def overlaps(self, other: "RowSet") -> bool:
        """Whether any row is in both."""
        mine = int.from_bytes(self._bits, "little")
        return bool(mine & int.from_bytes(other._bits, "little"))


def row_of(line: bytes, head: bytes) -> int:
    """The number of a line's row, -1 where it has none.

    >>> row_of(b'{"id":"run-7","custom_id":', b'{"id":"run-')
    7
    """
    digits = line[len(head) : _HEAD_BYTES].partition(b'"')[0]
    return int(digits) if digits.isdigit() else -1


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes this path's place once it is written whole and durable.

    If anything fails, what stands there stays. Raises BatchFileError.
    """
    new = _unfinished(path)
    try:
        with new.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        new.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise file_error("write", path, error) from None
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _unfinished(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def check_name(path: Path) -> None:
    """Refuse a name that says of an output what it is not. Raises BatchFileError."""
    name = path.name
    while name.lower().endswith(_NOT_PLAIN):
        name = name.rpartition(".")[0]
    if name != path.name:
        plain = path.with_name(name.removesuffix(".jsonl") + ".jsonl")
        raise BatchFileError(
            f"{path} is named as what it would not be: answers are written as plain "
            f"JSONL; say -o {plain}"
        )


def check_place(path: Path) -> None:
    """Refuse a place where no file of a run can stand. Raises BatchFileError."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise file_error("write", path, error) from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise BatchFileError(f"{path} is a device or a pipe; name a file")


class OutputFile:
    """A file of lines that grows; whole lines only, also after a crash or a full disk.

    Not for two programs at once: the second one is refused.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        #: Bytes of whole lines.
        self.length = 0
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            check_place(path)
            self._file = os.open(path, flags, 0o666)
        except OSError as error:
            raise file_error("write", path, error) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise OutputBusyError(
                f"another program writes {path} now; wait for its end, or stop it"
            ) from None
        # What a program that was killed had begun to put into its place.
        with suppress(OSError):
            _unfinished(path.resolve()).unlink()

    def take_over(self, head: bytes, rows: RowSet) -> int:
        """Note the rows whose lines stand here, cut a torn end; returns bytes cut off.

        ``head`` is how each line begins. Raises BatchFileError where a line is of
        another run, or stands there twice.
        """
        good, line_number = 0, 0
        with os.fdopen(os.dup(self._file), "rb", buffering=BLOCK_BYTES) as stream:
            stream.seek(0)
            for line in stream:
                line_number += 1
                if not (line.startswith(head) and line.endswith(_END)):
                    if self._is_torn(line, stream.read(1)):
                        break
                    raise self._foreign(line_number)
                number = row_of(line, head)
                if not 0 <= number < rows.size or not rows.add(number):
                    raise self._foreign(line_number)
                good += len(line)
        cut = os.fstat(self._file).st_size - good
        if cut:
            os.ftruncate(self._file, good)
        self.length = good
        return cut

    @staticmethod
    def _is_torn(line: bytes, more: bytes) -> bool:
        """Whether this is the end of what a killed program or a crash left."""
        if not line.endswith(b"\n"):
            return True
        try:
            orjson.loads(line)
        except orjson.JSONDecodeError:
            # A crashed machine leaves zeros where data were to come.
            return not more or b"\0" in line
        return False

    def _foreign(self, line: int) -> BatchFileError:
        return BatchFileError(
            f"line {line} of {self.path} is not of this run, or stands there twice; "
            "take it out, or choose another output"
        )

    def append(self, lines: Iterable[bytes]) -> None:
        """Write whole lines; where they cannot be written, none of them stand there."""
        data = b"".join(lines)
        try:
            self._check_place()
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self.length)
            raise file_error("write", self.path, error) from None
        self.length += len(data)

    def _check_place(self) -> None:
        ours = os.fstat(self._file)
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            there = None
        if there is None or not os.path.samestat(there, ours):
            raise BatchFileError(
                f"{self.path} was removed or replaced while it was written; what it "
                f"held is {'gone' if there is None else 'elsewhere'}: put it back and "
                "run the same command again"
            )
        if ours.st_size != self.length:
            raise BatchFileError(
                f"somebody else wrote into {self.path}: it has {ours.st_size} bytes in "
                f"place of {self.length}; correct that and run the same command again"
            )

    def sync(self) -> None:
        """Have what was written survive a crash of the machine."""
        try:
            os.fsync(self._file)
        except OSError as error:
            raise file_error("write", self.path, error) from None

    def close(self) -> None:
        """Leave it; an empty one is removed."""
        ours = os.fstat(self._file)
        with suppress(OSError):
            # What stands there may be somebody's own, and refused for that.
            if ours.st_size == 0 and os.path.samestat(ours, self.path.stat()):
                self.path.unlink()
        os.close(self._file)


def is_written(path: Path) -> bool:
    """Whether another program has it open to write."""
    try:
        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        raise file_error("read", path, error) from None
    return False


def detach(path: Path) -> None:
    """Put a copy into its place: a program that has it open changes nothing any more.

    That one must not believe that what it wrote after this counts.
    """
    if path.exists():
        with whole_file(path) as stream, path.open("rb") as old:
            shutil.copyfileobj(old, stream, BLOCK_BYTES)
