"""Errors of the operating system in words."""

from collections.abc import Callable
from pathlib import Path

import pytest

from modelserver.errors import BatchFileError
from modelserver.runs.files.output import OutputFile, whole_file
from modelserver.runs.files.problems import file_error
from modelserver.runs.files.source import Source, spooled


def _write(path: Path) -> None:
    OutputFile(path)


def _replace(path: Path) -> None:
    with whole_file(path):
        raise AssertionError("it was opened")


def _keep_pipe(path: Path) -> None:
    with Path("/dev/null").open("rb") as stream, spooled(stream, path.parent):
        raise AssertionError("it was opened")


def _read(path: Path) -> None:
    Source(path).digest()


@pytest.mark.parametrize("use", [_write, _replace, _keep_pipe, _read])
def test_a_missing_folder_is_named(use: Callable[[Path], None], tmp_path: Path) -> None:
    said = f"there is no folder {tmp_path / 'of'}; make it, or correct the path"
    with pytest.raises(BatchFileError) as caught:
        use(tmp_path / "of" / "last night" / "out.jsonl")
    assert str(caught.value).endswith(said)


def test_a_missing_file_of_a_folder_is_no_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(BatchFileError, match=r"No such file.*; correct the path$"):
        _read(tmp_path / "in.jsonl")


def test_an_error_without_a_path_names_the_file() -> None:
    told = file_error("write", "out.jsonl", FileNotFoundError(2, "No such file"))
    assert str(told) == "cannot write out.jsonl: No such file; correct the path"
