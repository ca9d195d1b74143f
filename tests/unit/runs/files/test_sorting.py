"""An output in the order of the input: whole before, whole after, whatever comes."""

import errno
import os
import random
import resource
from pathlib import Path

import pytest

from modelserver.errors import BatchFileError
from modelserver.runs.files.batch_form import answer_line, line_head
from modelserver.runs.files.output import OutputFile
from modelserver.runs.files.sorting import sort_lines
from modelserver.runs.rows import Answered

HEAD = line_head("run1")
ROWS = 300


def line(number: int) -> bytes:
    text = "x" * (number * 7 % 90)
    return answer_line("run1", f"row-{number}", Answered(number, {"choices": [text]}))


def written(path: Path, numbers: list[int]) -> Path:
    path.write_bytes(b"".join(map(line, numbers)))
    return path


def shuffled() -> list[int]:
    numbers = [number for number in range(ROWS) if number % 9]
    random.Random(7).shuffle(numbers)
    return numbers


def test_lines_come_into_the_order_of_their_rows(tmp_path: Path):
    path = written(tmp_path / "out", shuffled())
    path.chmod(0o640)
    assert sort_lines(path, HEAD, ROWS)
    assert path.read_bytes() == b"".join(map(line, sorted(shuffled())))
    assert path.stat().st_mode & 0o777 == 0o640
    assert [*tmp_path.iterdir()] == [path]


def test_what_is_in_order_is_not_written_again(tmp_path: Path):
    path = written(tmp_path / "out", sorted(shuffled()))
    before = path.stat()
    assert not sort_lines(path, HEAD, ROWS)
    assert not sort_lines(tmp_path / "nothing", HEAD, ROWS)
    assert path.stat() == before


def test_a_link_leads_to_the_sorted_file(tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    path = written(tmp_path / "elsewhere" / "out", [2, 1])
    link = tmp_path / "link"
    link.symlink_to(path)
    assert sort_lines(link, HEAD, ROWS)
    assert link.is_symlink()
    assert path.read_bytes() == line(1) + line(2)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_without_room_it_stays_as_it_was(tmp_path: Path, share: float):
    path = written(tmp_path / "out", shuffled())
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    most = int(share * len(before))
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    try:
        with pytest.raises(BatchFileError, match=os.strerror(errno.EFBIG)):
            sort_lines(path, HEAD, ROWS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]
    assert sort_lines(path, HEAD, ROWS)


def test_room_that_is_missing_is_told_before(tmp_path: Path):
    path = written(tmp_path / "out", [2, 1])
    free = os.statvfs(tmp_path)
    rows = free.f_bavail * free.f_frsize // 8
    with pytest.raises(BatchFileError, match="is whole, but not sorted: that takes"):
        sort_lines(path, HEAD, rows)
    assert path.read_bytes() == line(2) + line(1)


def test_what_a_killed_program_left_of_it_goes(tmp_path: Path):
    path = written(tmp_path / "out", [2, 1])
    (tmp_path / "out.new").write_bytes(line(1)[:20])
    OutputFile(path).close()
    assert [*tmp_path.iterdir()] == [path]
