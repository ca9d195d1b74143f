"""Rows that a batch did not come to: each has its line among the errors, as OpenAI's.

So that a client finds every row of its input, and can send those again.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import orjson

from modelserver.errors import BatchFileError
from modelserver.runs.files.batch_form import error_line, line_head
from modelserver.runs.files.journal import BatchPaths, Journal
from modelserver.runs.files.output import RowSet, row_of
from modelserver.runs.files.source import Source
from modelserver.runs.rows import CANCELLED, EXPIRED, RowError

#: What is told of a row, by how its batch ended.
UNANSWERED = {
    "expired": RowError(
        EXPIRED, "the completion window of the batch was over before it was answered"
    ),
    "cancelled": RowError(CANCELLED, "the batch was cancelled before it was answered"),
}
#: The code of a row that was taken back, which is told anew by why.
_TAKEN_BACK = "batch_cancelled"

logger = logging.getLogger(__name__)


def write_errors(
    into: Path, source: Path | None, paths: BatchPaths, ended: str
) -> None:
    """Write the errors of a batch that has ``ended``, with the rows without an answer.

    Where its input is gone, what is known is told. Blocks. Raises OSError and
    BatchFileError.
    """
    partial = into.with_suffix(".part")
    with partial.open("wb") as file:
        file.writelines(_lines(source, paths, UNANSWERED[ended]))
        file.flush()
        os.fsync(file.fileno())
    partial.rename(into)


def _lines(source: Path | None, paths: BatchPaths, error: RowError) -> Iterator[bytes]:
    journal = Journal.read(paths.journal)
    if journal is None:
        yield from _read(paths.errors)
        return
    head, told = line_head(journal.run), RowSet(journal.rows)
    for line in _read(paths.output):
        told.add(row_of(line, head))
    for line in _read(paths.errors):
        if (orjson.loads(line)["error"] or {}).get("code") != _TAKEN_BACK:
            told.add(row_of(line, head))
            yield line
    for number, name in _names(source):
        if number < journal.rows and number not in told:
            yield error_line(journal.run, number, name, error)


def _names(source: Path | None) -> Iterator[tuple[int, str]]:
    """The rows of the input with their names, as far as it can be read."""
    try:
        if source is not None:
            for number, (_, raw) in enumerate(Source(source).rows()):
                if isinstance(raw, bytes):
                    yield number, orjson.loads(raw)["custom_id"]
    except BatchFileError as problem:
        logger.warning("not all rows of a batch are told of: %s", problem)


def _read(path: Path) -> Iterator[bytes]:
    if path.exists():
        with path.open("rb") as file:
            yield from file
