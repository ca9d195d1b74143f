"""Bounds the logs of a run folder while programs go on writing to them.

The end of a large log is copied, and then it is cut to nothing. Programs hold it open
to append, so they go on at its new beginning; what they write in between is lost. A log
that somebody else has moved or deleted meanwhile is still written to, and is cut too.
The folder and each log may be a symbolic link: then a log is where that leads.
"""

import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

import psutil

from launcher.host.troubles import HostTroubles

_log = logging.getLogger(__name__)

#: A log is set aside when it is larger than this, in bytes.
LOG_LIMIT_BYTES = 64 * 1024 * 1024
#: Seconds between two looks at the logs: a program may write 50 MB a second.
LOG_LOOK_SECONDS = 1.0
#: Looks at the logs between two looks for those that were moved or deleted.
LOOKS_PER_SEARCH = 10
#: The files of a process to which it writes what it says.
OUTPUTS = (1, 2)
#: What steers a terminal, such as colours: it is for no report.
TERMINAL = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*)|[\0-\x08\x0e-\x1f\x7f]"
)
#: What is copied at once, in bytes.
COPY_BYTES = 1024 * 1024


class Logs:
    """Looks after all ``*.log`` of a folder, in a thread."""

    def __init__(
        self,
        folder: Path,
        limit_bytes: int = LOG_LIMIT_BYTES,
        troubles: HostTroubles | None = None,
    ) -> None:
        self._folder = folder
        self._troubles = troubles or HostTroubles()
        self._limit_bytes = limit_bytes
        self._closing = threading.Event()
        #: What was logged of a file, so that it is once.
        self._said: dict[str, str] = {}

    def start(self) -> None:
        """Look after them from now on."""
        threading.Thread(target=self._run, name="logs", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._closing.set()

    def _run(self) -> None:
        looks = 0
        while not self._closing.wait(LOG_LOOK_SECONDS):
            looks += 1
            with self._troubles.guard("host", "look after its logs"):
                try:
                    self.look(search=looks % LOOKS_PER_SEARCH == 0)
                except OSError as error:
                    # Its disk is away for now; a later look may find it back.
                    self._say(str(self._folder), f"cannot be looked at: {error}")

    def look(self, search: bool) -> None:
        """Bound every log; with ``search`` also those that are no longer in place."""
        for log in self._folder.glob("*.log"):
            try:
                bound(log, self._limit_bytes)
                self._said.pop(str(log), None)
            except OSError as error:
                self._say(str(log), f"cannot be set aside: {error}")
        for moved in find_moved(self._folder) if search else ():
            try:
                if os.stat(moved).st_size > self._limit_bytes:
                    os.truncate(moved, 0)
                    told = "a program still writes to it; it is cut when it is large"
                    self._say(_target(moved), told)
            except OSError as error:
                self._say(_target(moved), f"cannot be cut: {error}")

    def _say(self, file: str, what: str) -> None:
        if self._said.get(file) != what:
            self._said[file] = what
            _log.warning("%s %s", file, what)


def find_moved(folder: Path) -> Iterator[str]:
    """What programs still write to that was one of the folder's logs, each once.

    As names in /proc, by which it can be cut although it may have no other. Leaves out
    programs of other users.
    """
    home = os.path.realpath(folder)
    logs = [os.path.realpath(log) for log in folder.glob("*.log")]
    # One that a link leads to is among what is not of the folder.
    elsewhere = tuple(log for log in logs if os.path.dirname(log) != home)
    # A log that is in place is bounded as that.
    seen = {_key(log) for log in logs} | {None}
    for pid in psutil.pids():
        for number in OUTPUTS:
            name = f"/proc/{pid}/fd/{number}"
            place, _, called = (target := _target(name)).rpartition("/")
            ours = place == home and ".log" in called
            if not (ours or target.startswith(elsewhere)):
                continue
            if (key := _key(name)) not in seen:
                seen.add(key)
                yield name


def _target(name: str) -> str:
    """Where an open file was last, and whether it is "(deleted)"; "" if unknown."""
    try:
        return os.readlink(name)
    except OSError:
        return ""


def _key(file: str) -> tuple[int, int] | None:
    """What tells a plain file from others, whatever it is called."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if S_ISREG(found.st_mode) else None


def bound(log: Path, limit_bytes: int = LOG_LIMIT_BYTES) -> bool:
    """Set a log aside as ``NAME.log.1`` if it is large; whether it was.

    Where the disk has no room for that, what the log held is dropped. Of a link it is
    beside what that leads to: somebody has chosen that disk.
    """
    log = Path(os.path.realpath(log))
    try:
        size = log.stat().st_size
        if size <= limit_bytes:
            return False
    except FileNotFoundError:
        return False
    aside, fault = log.with_name(log.name + ".1"), None
    try:
        # The one before goes first: there may be room for two, and not for three.
        aside.unlink(missing_ok=True)
        with log.open("rb") as source, aside.open("wb") as copy:
            # Nobody bounds it while the launcher is away.
            begin = max(0, size - 2 * limit_bytes)
            source.seek(begin)
            # No more than there was: who writes may be faster than the copy.
            _copy(source, copy, size - begin)
    except OSError as error:
        fault = error
        with suppress(OSError):
            aside.unlink(missing_ok=True)
    os.truncate(log, 0)
    if fault is not None:
        _log.warning("%s was cut without a copy: %s", log, fault)
    return True


def _copy(source: BinaryIO, copy: BinaryIO, size: int) -> None:
    while size > 0 and (piece := source.read(min(size, COPY_BYTES))):
        copy.write(piece)
        size -= len(piece)


def read_tail(log: Path, offset: int, limit: int = 65_536) -> str:
    """The end of what one start has written, from ``offset`` on, as plain text."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            begin = offset if offset <= size else 0  # It was set aside meanwhile.
            file.seek(max(begin, size - limit))
            return TERMINAL.sub("", file.read().decode(errors="replace"))
    except OSError:
        return ""
