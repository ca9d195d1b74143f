"""The input of a run, as it may come."""

import gzip
import io
from pathlib import Path

import pytest

from modelserver.errors import BatchFileError
from modelserver.runs.files import source as module
from modelserver.runs.files.problems import LineError
from modelserver.runs.files.source import MOST_LINE_BYTES, Source, spooled


def rows(path: Path, data: bytes) -> list[tuple[int, module.RawRow]]:
    path.write_bytes(data)
    return list(Source(path).rows())


@pytest.mark.parametrize(
    "data",
    [
        b"a\nb\n",
        b"a\nb",
        b"a\r\nb\r\n",
        b"\xef\xbb\xbfa\nb\n",
        gzip.compress(b"a\nb\n", mtime=0),
    ],
    ids=["plain", "no end", "CRLF", "BOM", "gzip"],
)
def test_lines_are_the_same_however_they_come(tmp_path: Path, data: bytes):
    assert rows(tmp_path / "in", data) == [(1, b"a"), (2, b"b")]


def test_blank_lines_are_counted_and_left_out(tmp_path: Path):
    assert rows(tmp_path / "in", b"\n a \n\n \nb\n") == [(2, b"a"), (5, b"b")]


def test_a_line_that_is_too_long_is_bad_and_the_next_is_fine(tmp_path: Path):
    first, second = rows(tmp_path / "in", b"x" * (MOST_LINE_BYTES + 5) + b"\nb\n")
    assert isinstance(first[1], LineError)
    assert "32 MB" in str(first[1])
    assert second == (2, b"b")


def test_zstd_is_unpacked(tmp_path: Path):
    zstandard = pytest.importorskip("zstandard")
    frames = zstandard.compress(b"a\n") + zstandard.compress(b"b\n" * 200_000)
    found = rows(tmp_path / "in.zst", frames)
    assert (found[0], found[-1]) == ((1, b"a"), (200_001, b"b"))
    with pytest.raises(BatchFileError, match="damaged"):
        rows(tmp_path / "in.zst", frames + b"more")


def test_zstd_that_is_cut_off_at_any_byte_is_told(tmp_path: Path):
    zstandard = pytest.importorskip("zstandard")
    whole = zstandard.compress(b"a\n") + zstandard.compress(b"b\n")
    first = len(zstandard.compress(b"a\n"))
    for size in set(range(4, len(whole))) - {first}:
        with pytest.raises(BatchFileError, match="damaged"):
            rows(tmp_path / "in.zst", whole[:size])


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("in.jsonl", gzip.compress(b"a\n" * 9999, mtime=0)[:-20], "damaged"),
        ("in.jsonl", b"\xff\xfea\0", "UTF-16"),
        ("in.csv", b"a,b\n\xff,1\n", "not UTF-8"),
        ("in.csv", b'a,b\n"x"y,1\n', "no CSV after line 1"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(
    tmp_path: Path, name: str, data: bytes, words: str
):
    with pytest.raises(BatchFileError, match=words):
        rows(tmp_path / name, data)


def test_a_table_has_columns(tmp_path: Path):
    (tmp_path / "in.csv").write_text('a,b\n1,"x\ny"\n2\n3,4,5\n')
    found = list(Source(tmp_path / "in.csv").rows())
    assert found[0] == (3, {"a": "1", "b": "x\ny"})
    assert [str(row) for _, row in found[1:]] == [
        "has fewer cells than the header; quote cells that have commas or quotes",
        "has more cells than the header; quote cells that have commas or quotes",
    ]


def test_an_empty_cell_is_missing_and_an_empty_text_is_not(tmp_path: Path):
    data = 'a,b,c\n"x, ""y""",,"z"\n"1\r\n2","",\n\n,,""\n'
    (tmp_path / "in.csv").write_text(data, newline="")
    found = [row for _, row in Source(tmp_path / "in.csv").rows()]
    assert found == [
        {"a": 'x, "y"', "b": None, "c": "z"},
        {"a": "1\r\n2", "b": "", "c": None},
        {"a": None, "b": None, "c": ""},
    ]


def test_parquet_is_a_table(tmp_path: Path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"a": [1, 2], "b": ["x", None]})
    parquet.write_table(table, tmp_path / "in.parquet")
    found = list(Source(tmp_path / "in.parquet").rows())
    assert found == [(1, {"a": 1, "b": "x"}), (2, {"a": 2, "b": None})]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "No such file.*correct the path"),
        (".", "it is a folder"),
        ("/dev/null", "it is a device"),
    ],
)
def test_a_path_that_is_no_file_is_told(tmp_path: Path, name: str, words: str):
    with pytest.raises(BatchFileError, match=words):
        Source(tmp_path / name)


def test_a_change_is_noticed(tmp_path: Path):
    path = tmp_path / "in.jsonl"
    path.write_text("a\n")
    source = Source(path)
    source.check_unchanged()
    path.write_text("a\nb\n")
    with pytest.raises(BatchFileError, match="changed while it was read"):
        source.check_unchanged()
    path.unlink()
    with pytest.raises(BatchFileError, match="changed while it was read"):
        source.check_unchanged()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (gzip.compress(gzip.compress(b"{}\n", mtime=0), mtime=0), "is packed twice"),
        (b"BZh91AY&SY", "is packed by bzip2; unpack it"),
        (b"PK\x03\x04", "is packed by zip"),
    ],
)
def test_what_is_packed_otherwise_is_told(tmp_path: Path, data: bytes, words: str):
    path = tmp_path / "in.jsonl"
    path.write_bytes(data)
    with pytest.raises(BatchFileError, match=words):
        list(Source(path).rows())


def test_a_column_that_is_there_twice_is_told(tmp_path: Path):
    path = tmp_path / "in.csv"
    path.write_text("id,text,text\n1,a,b\n")
    with pytest.raises(BatchFileError, match="has the column 'text' twice"):
        list(Source(path).rows())


def test_a_pipe_whose_copy_has_no_place_is_told(tmp_path: Path):
    with pytest.raises(BatchFileError, match="cannot write a copy of the pipe in"):
        spooled(io.BytesIO(b"{}"), tmp_path / "missing")
