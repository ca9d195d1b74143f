"""Folders of which only their user may write what is in them."""

import errno
import os
from pathlib import Path

from modelserver.errors import ConfigurationError

#: Errors of a path that can lead to no folder, whoever asks for it.
NO_FOLDER = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG}
)


def make_parents(folder: Path) -> None:
    """Make all folders on the way to one, closed to all but the user and its group.

    Whoever could write there, as with an umask of 000, could put another one in its
    place. Raises ConfigurationError where they can be none, and OSError.
    """
    for parent in reversed(folder.parents):
        _make(parent, 0o775, folder)


def make_private(folder: Path) -> None:
    """The same, and the folder itself, which no other user gets into."""
    make_parents(folder)
    _make(folder, 0o700, folder)


def _make(folder: Path, mode: int, wanted: Path) -> None:
    try:
        if not os.path.isdir(folder):
            folder.mkdir(mode=mode, exist_ok=True)
    except OSError as error:
        if error.errno not in NO_FOLDER:
            raise
        raise ConfigurationError(
            f"{wanted} can be no folder: {folder}: {error.strerror}; set "
            "MODELSERVER_HOME to a folder of yours"
        ) from error
