"""A run's output put into the order of its input, once all rows are done.

Line after line is copied from where it stands into a second file, which then takes the
place of the first: until then nothing has changed, whatever ends the program. Where
each row's line stands is kept on the disk as well, 16 bytes a row.
"""

import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from modelserver.errors import BatchFileError
from modelserver.runs.files.output import BLOCK_BYTES, row_of, whole_file
from modelserver.runs.files.problems import file_error

#: Bytes of a row's place: where its line begins, and how long it is.
PLACE_BYTES = 16


def sort_lines(path: Path, head: bytes, rows: int) -> bool:
    """Put the lines of a file into the order of their rows; whether they were not.

    ``head`` is how each begins. Needs room for a second copy of the file. Raises
    BatchFileError; then the file is as it was.
    """
    real = path.resolve()
    try:
        with real.open("rb") as lines:
            if _is_sorted(lines, head):
                return False
            _check_room(path, os.fstat(lines.fileno()).st_size + rows * PLACE_BYTES)
            with _open_places(real.parent, rows) as places, whole_file(real) as copy:
                os.fchmod(copy.fileno(), os.fstat(lines.fileno()).st_mode & 0o7777)
                _note_places(lines, head, places)
                _copy(lines, places, copy)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise file_error("sort", path, error) from None
    return True


def _is_sorted(lines: IO[bytes], head: bytes) -> bool:
    last = -1
    for line in lines:
        number = row_of(line, head)
        if number < last:
            return False
        last = number
    return True


def _check_room(path: Path, needed: int) -> None:
    found = os.statvfs(path.resolve().parent)
    free = found.f_bavail * found.f_frsize
    if needed > free:
        raise BatchFileError(
            f"{path} is whole, but not sorted: that takes {_megabytes(needed)} more "
            f"beside it, and {_megabytes(free)} are free; make room and run the same "
            "command again, or leave --sorted out"
        )


def _megabytes(size: int) -> str:
    """Megabytes for people.

    >>> _megabytes(1_500_000), _megabytes(502_000_000)
    ('1.5 MB', '502 MB')
    """
    value = size / 1e6
    return f"{value:.1f} MB" if value < 10 else f"{value:,.0f} MB"


@contextmanager
def _open_places(folder: Path, rows: int) -> Iterator["memoryview[int]"]:
    """Two numbers for each row, in a file without a name."""
    with tempfile.TemporaryFile(dir=folder, prefix=".batch-order-") as file:
        size = rows * PLACE_BYTES
        # Room that is missing is told here: in the map it would end the program.
        os.posix_fallocate(file.fileno(), 0, size)
        with (
            mmap.mmap(file.fileno(), size) as memory,
            memoryview(memory) as octets,
            octets.cast("Q") as places,
        ):
            yield places


def _note_places(lines: IO[bytes], head: bytes, places: "memoryview[int]") -> None:
    begin = 0
    lines.seek(0)
    for line in lines:
        place = 2 * row_of(line, head)
        places[place], places[place + 1] = begin, len(line)
        begin += len(line)


def _copy(lines: IO[bytes], places: "memoryview[int]", copy: IO[bytes]) -> None:
    file, block, size = lines.fileno(), [], 0
    for place in range(0, len(places), 2):
        length = places[place + 1]
        if not length:
            continue  # The row's line is in the other file.
        block.append(os.pread(file, length, places[place]))
        size += length
        if size > BLOCK_BYTES:
            copy.write(b"".join(block))
            block, size = [], 0
    copy.write(b"".join(block))
