"""What comes through a pipe, kept for whoever carries the run out."""

import os
import threading
from pathlib import Path

import pytest

from modelserver.cli.batch.run import keep_pipe
from modelserver.errors import BatchFileError
from modelserver.runs.files.journal import BatchPaths, Journal
from modelserver.runs.files.source import Source


@pytest.fixture
def paths(tmp_path: Path) -> BatchPaths:
    return BatchPaths(tmp_path / "out.jsonl")


def keep(paths: BatchPaths, data: bytes) -> None:
    pipe = paths.output.with_name("pipe")
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    try:
        keep_pipe(str(pipe), paths)
    finally:
        writer.join()


def test_it_stands_beside_the_output_and_nothing_else_does(paths: BatchPaths):
    keep(paths, b"one\n" * 100_000)
    assert paths.input.read_bytes() == b"one\n" * 100_000
    there = {path.name for path in paths.output.parent.iterdir()}
    assert there == {"out.input", "pipe"}


def test_the_same_again_goes_on_and_another_is_refused(paths: BatchPaths):
    keep(paths, b"one\n")
    digest = Source(paths.input).digest()
    Journal.begin("pipe", digest, 1, {}).write(paths.journal)
    keep(paths, b"one\n")
    paths.input.unlink()
    keep(paths, b"one\n")
    with pytest.raises(BatchFileError, match="begun with another input"):
        keep(paths, b"two\n")
    assert paths.input.read_bytes() == b"one\n"


def test_somebodys_own_file_is_left_as_it_is(paths: BatchPaths):
    paths.input.write_text("precious")
    with pytest.raises(BatchFileError, match=r"out\.input is there"):
        keep(paths, b"one\n")
    assert paths.input.read_text() == "precious"
