"""The input of a run, line by line: JSONL, CSV, Parquet; gzip, zstd; a pipe.

Each pass opens it anew, so that nothing of it is kept in memory.
"""

import csv
import gzip
import hashlib
import io
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, cast

from modelserver.errors import BatchFileError
from modelserver.runs.files.problems import LineError, file_error

#: A line may have so many bytes.
MOST_LINE_BYTES = 32 * 2**20
#: Bytes that are read at once for the digest.
BLOCK_BYTES = 2**20
#: What files begin with that are compressed, or no UTF-8.
_GZIP, _ZSTD, _PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
_BOM, _UTF16 = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")
#: What files begin with that are packed in a way that is not read.
_OTHERS = {b"BZh": "bzip2", b"PK\x03": "zip", b"\xfd7z": "xz", b"7z\xbc": "7z"}
#: Compressed by these.
_PACKED = (".gz", ".zst", ".zstd")

#: A row as it is read: a line's bytes, a table's columns, or what is wrong with it.
RawRow = bytes | Mapping[str, Any] | LineError


class Source:
    """One input file. A pipe is first copied, into a file beside the output."""

    def __init__(self, path: Path, name: str = "", form: str = "") -> None:
        self.path = path
        #: What people call it.
        self.name = name or str(path)
        #: "jsonl", "csv" or "parquet".
        self.form = form or form_of(path)
        try:
            if path.is_dir():
                raise IsADirectoryError(21, "it is a folder")
            if path.exists() and not path.is_file():
                raise BatchFileError(f"cannot read {self.name}: it is a device")
            with path.open("rb") as stream:
                self._head = stream.read(4)
            self._begun_with = self._signature()
        except OSError as error:
            raise file_error("read", self.name, error) from None
        if self._head == _PARQUET:
            self.form = "parquet"
        if packed := _OTHERS.get(self._head[:3]):
            raise BatchFileError(
                f"{self.name} is packed by {packed}; unpack it, or pack it by gzip"
            )

    @property
    def is_table(self) -> bool:
        """Whether its rows have columns."""
        return self.form != "jsonl"

    def rows(self) -> Iterator[tuple[int, RawRow]]:
        """Each row that is not blank, with the number of its line from 1.

        Raises BatchFileError where the file cannot be read on.
        """
        readers = {"jsonl": self._lines, "csv": self._csv, "parquet": self._parquet}
        try:
            yield from readers[self.form]()
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise BatchFileError(
                f"{self.name} is damaged ({error}); compress it again"
            ) from None
        except OSError as error:
            raise file_error("read", self.name, error) from None

    def digest(self) -> str:
        """What tells this file from any other."""
        sum_of = hashlib.blake2b(digest_size=16)
        try:
            with self.path.open("rb") as stream:
                while block := stream.read(BLOCK_BYTES):
                    sum_of.update(block)
        except OSError as error:
            raise file_error("read", self.name, error) from None
        return sum_of.hexdigest()

    def check_unchanged(self) -> None:
        """Raises BatchFileError if somebody has written into it since."""
        try:
            is_same = self._signature() == self._begun_with
        except OSError:
            is_same = False
        if not is_same:
            raise BatchFileError(
                f"{self.name} changed while it was read; what is answered stands in "
                "the output: put the file back as it was and run the same command "
                "again, or begin with another output"
            )

    def is_same_file(self, path: Path) -> bool:
        """Whether this path leads to the same file."""
        try:
            found = os.stat(path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._begun_with[:2]

    def _signature(self) -> tuple[int, int, int, int]:
        found = os.stat(self.path)
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        with self.path.open("rb") as stream:
            if self._head[:2] == _GZIP:
                with gzip.open(stream, "rb") as unpacked:
                    yield cast(IO[bytes], unpacked)
            elif self._head == _ZSTD:
                yield io.BufferedReader(ZstdFrames(stream), BLOCK_BYTES)
            else:
                yield stream

    def _lines(self) -> Iterator[tuple[int, RawRow]]:
        with self._opened() as stream:
            number = 0
            while line := stream.readline(MOST_LINE_BYTES + 1):
                number += 1
                if len(line) > MOST_LINE_BYTES:
                    size = len(line)
                    while line and not line.endswith(b"\n"):
                        line = stream.readline(BLOCK_BYTES)
                        size += len(line)
                    yield number, LineError("line_too_long", _too_long(size))
                    continue
                if number == 1:
                    if line[:2] in _UTF16:
                        raise BatchFileError(f"{self.name} is UTF-16; save it as UTF-8")
                    if line[:2] == _GZIP or line[:4] == _ZSTD:
                        told = f"{self.name} is packed twice; unpack it once"
                        raise BatchFileError(told)
                    line = line.removeprefix(_BOM)
                if line := line.strip():
                    yield number, line

    def _csv(self) -> Iterator[tuple[int, RawRow]]:
        with self._opened() as stream:
            text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
            csv.field_size_limit(MOST_LINE_BYTES)
            read: list[str] = []
            reader = csv.reader(_remembered(text, read), strict=True)
            header: list[str] = []
            line = 0
            try:
                for row in reader:
                    line, record = reader.line_num, "".join(read)
                    read.clear()
                    if not header:
                        header = row
                        self._check_header(row)
                    elif row and len(row) != len(header):
                        is_more = len(row) > len(header)
                        yield line, LineError("invalid_row", _odd(is_more))
                    elif row:
                        cells = _with_missing(row, record) if "" in row else row
                        yield line, dict(zip(header, cells, strict=True))
            except UnicodeDecodeError as error:
                raise BatchFileError(
                    f"{self.name} is not UTF-8 after line {line} "
                    f"({error.reason}); save it as UTF-8"
                ) from None
            except csv.Error as error:
                raise BatchFileError(
                    f"{self.name} is no CSV after line {line}: {error}"
                ) from None

    def _check_header(self, header: list[str]) -> None:
        names = [name for name in header if name]
        if twice := {name for name in names if names.count(name) > 1}:
            raise BatchFileError(
                f"{self.name} has the column {min(twice)!r} twice; rename one"
            )

    def _parquet(self) -> Iterator[tuple[int, RawRow]]:
        try:
            from pyarrow import ArrowException, parquet
        except ImportError:
            raise BatchFileError(
                f"{self.name} is Parquet, which needs pyarrow here; "
                "`pip install pyarrow`, or save it as CSV"
            ) from None
        number = 0
        try:
            with parquet.ParquetFile(self.path) as file:
                for batch in file.iter_batches(1024):
                    for row in batch.to_pylist():
                        number += 1
                        yield number, row
        except ArrowException as error:
            raise BatchFileError(f"{self.name} is no Parquet: {error}") from None


def form_of(path: Path) -> str:
    """What a file is by its name: "jsonl", "csv" or "parquet"."""
    name = path.name.lower()
    for suffix in _PACKED:
        name = name.removesuffix(suffix)
    for form in ("csv", "parquet"):
        if name.endswith(f".{form}"):
            return form
    return "jsonl"


def _remembered(lines: Iterable[str], read: list[str]) -> Iterator[str]:
    for line in lines:
        read.append(line)
        yield line


def _with_missing(row: list[str], record: str) -> list[str | None]:
    """The cells of a record of CSV, None where nothing stands: "" is an empty text.

    >>> _with_missing(["", "", "a,b"], ',"","a,b"')
    [None, '', 'a,b']
    """
    found: list[str | None] = []
    at = 0
    for cell in row:
        is_quoted = record.startswith('"', at)
        found.append(cell if cell or is_quoted else None)
        at += len(cell) + 2 * is_quoted + is_quoted * cell.count('"') + 1
    return found


def _too_long(size: int) -> str:
    most = MOST_LINE_BYTES >> 20
    return f"has {size / 2**20:.0f} MB; a line may have {most} MB: split it"


def _odd(is_more: bool) -> str:
    told = "more" if is_more else "fewer"
    return f"has {told} cells than the header; quote cells that have commas or quotes"


class ZstdFrames(io.RawIOBase):
    """What is in all frames of a zstd file. Raises EOFError if the last is cut off."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._zstd = _zstd()
        self._frame: Any = None
        self._packed = b""
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """It is for reading."""
        return True

    def readinto(self, buffer: Any) -> int:
        """The next bytes, 0 at the end."""
        while not self._rest:
            self._packed = self._packed or self._stream.read(BLOCK_BYTES >> 4)
            if not self._packed:
                if self._frame is not None:
                    raise EOFError("it ends before the end of its data")
                return 0
            self._unpack()
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def _unpack(self) -> None:
        if self._frame is None:
            self._frame = self._zstd.ZstdDecompressor().decompressobj()
        try:
            self._rest = memoryview(self._frame.decompress(self._packed))
        except self._zstd.ZstdError as error:
            raise EOFError(str(error)) from None
        self._packed = b""
        if self._frame.eof:
            self._packed, self._frame = self._frame.unused_data, None


def _zstd() -> Any:
    try:
        import zstandard
    except ImportError:
        raise BatchFileError(
            "zstd needs zstandard here; `pip install zstandard`, or unpack the file"
        ) from None
    return zstandard


def spooled(pipe: IO[bytes], folder: Path) -> IO[bytes]:
    """What comes through a pipe, in a file that is gone with the program."""
    with ExitStack() as stack:
        try:
            made = tempfile.NamedTemporaryFile(dir=folder, prefix=".batch-input-")  # noqa: SIM115
            copy = stack.enter_context(made)
            shutil.copyfileobj(pipe, copy, BLOCK_BYTES)
            copy.flush()
        except OSError as error:
            told = f"a copy of the pipe in {folder}"
            raise file_error("write", told, error) from None
        stack.pop_all()
    return copy
