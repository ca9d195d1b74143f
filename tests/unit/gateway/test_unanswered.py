"""What is told of rows that a batch did not come to."""

import gzip
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from modelserver.gateway.unanswered import write_errors
from modelserver.runs.files.batch_form import answer_line, error_line
from modelserver.runs.files.journal import BatchPaths, Journal
from modelserver.runs.rows import CANCELLED, Answered, RowError

REFUSED = RowError("RequestError", "no")


@pytest.fixture
def paths(tmp_path: Path) -> BatchPaths:
    """A run of four rows: one answered, one refused, one taken back, one not begun."""
    paths = BatchPaths(tmp_path / "b.out.jsonl")
    journal = replace(Journal.begin("in", "", 4, {}), run="r")
    journal.write(paths.journal)
    paths.output.write_bytes(answer_line("r", "a", Answered(0, {"choices": []})))
    paths.errors.write_bytes(
        error_line("r", 1, "b", REFUSED)
        + error_line("r", 2, "c", RowError(CANCELLED, "taken back"))
    )
    return paths


def rows(names: str) -> bytes:
    return b"".join(orjson.dumps({"custom_id": each}) + b"\n" for each in names)


def told(paths: BatchPaths, source: Path | None) -> dict[str, str | None]:
    """The names of the rows among the errors, and their codes."""
    into = paths.output.with_name("all.jsonl")
    write_errors(into, source, paths, "expired")
    found = [orjson.loads(each) for each in into.read_bytes().splitlines()]
    return {each["custom_id"]: (each["error"] or {}).get("code") for each in found}


def test_each_row_without_an_answer_is_told_once(paths: BatchPaths, tmp_path: Path):
    source = tmp_path / "in.jsonl"
    # It has grown since.
    source.write_bytes(rows("abcdefgh"))
    expected = {"b": None, "c": "batch_expired", "d": "batch_expired"}
    assert told(paths, source) == expected


def test_without_the_input_what_is_known_is_told(paths: BatchPaths, tmp_path: Path):
    assert told(paths, None) == {"b": None}
    assert told(paths, tmp_path / "gone.jsonl") == {"b": None}
    damaged = tmp_path / "in.jsonl"
    damaged.write_bytes(gzip.compress(rows("abcd"))[:-8])
    assert set(told(paths, damaged)) >= {"b"}
