"""What is wrong with a file, as an error."""

import errno
from pathlib import Path

from modelserver.errors import BatchFileError


class OutputBusyError(BatchFileError):
    """Another program writes the output now."""


class LineError(BatchFileError):
    """One line of the input is no request."""

    def __init__(self, code: str, reason: str, custom_id: str | None = None) -> None:
        super().__init__(reason)
        #: One word for programs.
        self.code = code
        #: The line's own name for itself, where it could be read.
        self.custom_id = custom_id


#: Characters of a custom_id that are shown.
_SHOWN = 60


def shown(custom_id: str | None) -> str:
    """A custom_id in one line.

    >>> shown("row-1"), shown("two\\nlines"), len(shown("x" * 1_000))
    ('row-1', 'two\\\\nlines', 63)
    """
    text = str(custom_id)
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


#: By an error's number: what to do about it.
_REMEDIES = {
    errno.ENOSPC: "make room and run the same command again",
    errno.EDQUOT: "make room and run the same command again",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f) and run it again",
    errno.EACCES: "correct its permissions, or choose another",
    errno.EPERM: "correct its permissions, or choose another",
    errno.EROFS: "choose another, on a disk that can be written to",
    errno.ENOENT: "correct the path",
    errno.EISDIR: "name a file",
}


def file_error(doing: str, path: object, error: OSError) -> BatchFileError:
    """An operating system's error in words: what was done to which file, and now what.

    >>> print(file_error("write", "out.jsonl", OSError(2, "No such file")))
    cannot write out.jsonl: No such file; correct the path
    """
    said = error.strerror or str(error)
    remedy = _REMEDIES.get(
        error.errno or 0, "see to that and run the same command again"
    )
    if folder := _find_missing(error):
        said = f"there is no folder {folder}"
        remedy = "make it, or correct the path"
    told = f"cannot {doing} {path}: {said}; {remedy}"
    made = BatchFileError(told)
    made.errno = error.errno or 0
    return made


def _find_missing(error: OSError) -> Path | None:
    """The first folder on the way to the file that is not there."""
    if error.errno != errno.ENOENT or not isinstance(error.filename, (str, Path)):
        return None
    ways = reversed(Path(error.filename).parents)
    return next((each for each in ways if not each.exists()), None)
