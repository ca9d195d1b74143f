"""Files that are only appended to: torn, foreign, removed, on a full disk."""

import os
import resource
from pathlib import Path

import pytest

from modelserver.errors import BatchFileError
from modelserver.runs.files.batch_form import answer_line, line_head
from modelserver.runs.files.output import (
    OutputFile,
    RowSet,
    check_name,
    detach,
    is_written,
)
from modelserver.runs.rows import Answered

HEAD = line_head("run1")


def line(number: int) -> bytes:
    return answer_line("run1", f"row-{number}", Answered(number, {"choices": []}))


def taken_over(path: Path, size: int = 10) -> tuple[RowSet, int]:
    output, rows = OutputFile(path), RowSet(size)
    cut = output.take_over(HEAD, rows)
    output.close()
    return rows, cut


def test_what_stands_there_is_known(tmp_path: Path):
    path = tmp_path / "out"
    path.write_bytes(line(3) + line(7))
    rows, cut = taken_over(path)
    assert [number for number in range(10) if number in rows] == [3, 7]
    assert cut == 0


def test_a_write_that_was_torn_at_any_byte_is_cut_off(tmp_path: Path):
    path, whole = tmp_path / "out", line(3)
    for length in range(1, len(line(7))):
        path.write_bytes(whole + line(7)[:length])
        rows, cut = taken_over(path)
        assert cut == length
        assert len(rows) == 1
        assert path.read_bytes() == whole


def test_zeros_of_a_crashed_machine_are_cut_off(tmp_path: Path):
    path = tmp_path / "out"
    path.write_bytes(line(3) + b"\0" * 500)
    assert taken_over(path)[1] == 500


@pytest.mark.parametrize(
    "more",
    [b"{}\n", line(3), answer_line("other", "a", Answered(4, {})), line(99)],
    ids=["foreign", "twice", "another run", "no such row"],
)
def test_a_line_that_cannot_be_is_refused_and_left(tmp_path: Path, more: bytes):
    path = tmp_path / "out"
    path.write_bytes(line(3) + more + line(5))
    with pytest.raises(BatchFileError, match=r"line 2 of .* is not of this run"):
        taken_over(path)
    assert path.read_bytes() == line(3) + more + line(5)


def test_two_programs_cannot_write_it(tmp_path: Path):
    first = OutputFile(tmp_path / "out")
    with pytest.raises(BatchFileError, match="another program writes"):
        OutputFile(tmp_path / "out")
    first.close()
    OutputFile(tmp_path / "out").close()


def test_a_file_that_is_removed_or_replaced_is_noticed(tmp_path: Path):
    path = tmp_path / "out"
    output = OutputFile(path)
    output.append([line(1)])
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(BatchFileError, match="removed or replaced"):
        output.append([line(2)])
    path.write_bytes(b"")
    with pytest.raises(BatchFileError, match="removed or replaced"):
        output.append([line(2)])
    assert (tmp_path / "elsewhere").read_bytes() == line(1)


def test_a_file_that_somebody_else_wrote_into_is_noticed(tmp_path: Path):
    output = OutputFile(tmp_path / "out")
    output.append([line(1)])
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(BatchFileError, match="somebody else wrote"):
        output.append([line(2)])


@pytest.mark.parametrize("extra", range(0, 200, 7))
def test_where_there_is_no_room_whole_lines_stand(tmp_path: Path, extra: int):
    output = OutputFile(tmp_path / "out")
    output.append([line(1)])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(line(1)) + extra, before[1]))
    try:
        with pytest.raises(BatchFileError, match=r"cannot write .*out"):
            output.append([line(2), line(3)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "out").read_bytes() == line(1)
    output.append([line(2)])
    output.close()
    assert taken_over(tmp_path / "out")[0].size == 10


def test_a_place_that_cannot_be_written_to_is_told(tmp_path: Path):
    with pytest.raises(BatchFileError, match="there is no folder"):
        OutputFile(tmp_path / "nowhere" / "out")
    with pytest.raises(BatchFileError, match="directory"):
        OutputFile(tmp_path)


def test_what_is_refused_is_left_where_it_is(tmp_path: Path):
    path = tmp_path / "out"
    path.write_bytes(b"mine\n" + line(3))
    output = OutputFile(path)
    with pytest.raises(BatchFileError, match="is not of this run"):
        output.take_over(HEAD, RowSet(10))
    output.close()
    assert path.read_bytes() == b"mine\n" + line(3)


def test_a_file_of_somebody_else_in_its_place_is_left(tmp_path: Path):
    path = tmp_path / "out"
    output = OutputFile(path)
    path.unlink()
    path.touch()
    output.close()
    assert path.exists()


def test_a_pipe_and_a_device_are_no_output(tmp_path: Path):
    path = tmp_path / "out"
    os.mkfifo(path)
    with pytest.raises(BatchFileError, match="is a device or a pipe; name a file"):
        OutputFile(path)
    assert path.is_fifo()


def test_an_empty_file_is_removed(tmp_path: Path):
    OutputFile(tmp_path / "out").close()
    assert not (tmp_path / "out").exists()


def test_a_program_that_was_fenced_changes_nothing_any_more(tmp_path: Path):
    path = tmp_path / "out.jsonl"
    frozen = OutputFile(path)
    frozen.append([b'{"id":"r-0"}\n'])
    assert is_written(path)
    detach(path)
    assert not is_written(path)
    second = OutputFile(path)
    assert second.take_over(b'{"id":"r-', RowSet(9)) == 0
    with pytest.raises(BatchFileError, match="removed or replaced"):
        frozen.append([b'{"id":"r-1"}\n'])
    frozen.close()
    second.append([b'{"id":"r-2"}\n'])
    second.close()
    assert path.read_bytes() == b'{"id":"r-0"}\n{"id":"r-2"}\n'


def test_an_empty_file_of_another_program_is_not_removed(tmp_path: Path):
    path = tmp_path / "out.errors.jsonl"
    frozen = OutputFile(path)
    detach(path)
    second = OutputFile(path)
    frozen.close()
    second.append([b'{"id":"r-2"}\n'])
    second.close()
    assert path.exists()


@pytest.mark.parametrize(
    "name", ["out.jsonl.gz", "out.zst", "out.parquet", "OUT.CSV", "out.csv.gz"]
)
def test_an_output_is_not_named_for_what_it_is_not(name: str):
    with pytest.raises(BatchFileError, match=r"(?i)plain JSONL; say -o out\.jsonl$"):
        check_name(Path(name))
    check_name(Path("gz.of.csv.jsonl"))
