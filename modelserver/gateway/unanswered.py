"""Rows that a batch did not come to: each has its line among the errors, as OpenAI's.

So that a client finds every row of its input, and can send those again.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from modelserver.runs.files.batch_form import error_line
from modelserver.runs.files.journal import BatchPaths
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


def write_errors(
    into: Path, source: Path, paths: BatchPaths, run: str, ended: str
) -> None:
    """Write the errors of a batch that has ``ended``, with the rows without an answer.

    Blocks. Raises OSError, BatchFileError.
    """
    partial = into.with_suffix(".part")
    known = {line["custom_id"] for line in _read(paths.output)}
    with partial.open("wb") as file:
        for line in _read(paths.errors):
            if (line["error"] or {}).get("code") != _TAKEN_BACK:
                known.add(line["custom_id"])
                file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        for number, (_, raw) in enumerate(Source(source).rows()):
            name = orjson.loads(raw)["custom_id"] if isinstance(raw, bytes) else None
            if name is not None and name not in known:
                file.write(error_line(run, number, name, UNANSWERED[ended]))
        file.flush()
        os.fsync(file.fileno())
    partial.rename(into)


def _read(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        with path.open("rb") as file:
            yield from map(orjson.loads, file)
