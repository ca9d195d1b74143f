"""Bounds the logs of a run folder while programs go on writing to them.

The end of a large log is copied, and then it is cut to nothing. Programs hold it open
to append, so they go on at its new beginning; what they write in between is lost.
"""

import logging
import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path

_log = logging.getLogger(__name__)

#: A log is set aside when it is larger than this, in bytes.
LOG_LIMIT_BYTES = 64 * 1024 * 1024
#: Seconds between two looks at the logs.
LOG_LOOK_SECONDS = 10.0


class Logs:
    """Looks after all ``*.log`` of a folder, in a thread."""

    def __init__(self, folder: Path, limit_bytes: int = LOG_LIMIT_BYTES) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._closing = threading.Event()

    def start(self) -> None:
        """Look after them from now on."""
        threading.Thread(target=self._run, name="logs", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._closing.set()

    def _run(self) -> None:
        while not self._closing.wait(LOG_LOOK_SECONDS):
            for log in self._folder.glob("*.log"):
                try:
                    bound(log, self._limit_bytes)
                except OSError as error:
                    _log.warning("%s cannot be set aside: %s", log, error)


def bound(log: Path, limit_bytes: int = LOG_LIMIT_BYTES) -> bool:
    """Set a log aside as ``NAME.log.1`` if it is large; whether it was.

    Where the disk has no room for that, what the log held is dropped.
    """
    try:
        size = log.stat().st_size
        if size <= limit_bytes:
            return False
    except FileNotFoundError:
        return False
    aside = log.with_name(log.name + ".1")
    try:
        # The one before goes first: there may be room for two, and not for three.
        aside.unlink(missing_ok=True)
        with log.open("rb") as source, aside.open("wb") as copy:
            # Nobody bounds it while the launcher is away.
            source.seek(max(0, size - 2 * limit_bytes))
            shutil.copyfileobj(source, copy, 1024 * 1024)
    except OSError as error:
        _log.warning("%s is cut without a copy: %s", log, error)
        with suppress(OSError):
            aside.unlink(missing_ok=True)
    os.truncate(log, 0)
    return True
