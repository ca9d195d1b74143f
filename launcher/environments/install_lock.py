"""One installation of an environment at a time, also among hosts that share a folder.

The kernel's lock holds among the processes of one host, and among hosts only where the
network's disk takes part. So the holder also has a claim: a file beside the lock that
only one host can create, and that it touches while it lives.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO

from launcher.environments.children import (
    POLL_SECONDS,
    InstallProgress,
    ReportProgress,
)
from modelserver.private_folders import make_parents

#: Seconds between two touches of a claim.
TOUCH_SECONDS = 5.0
#: Seconds after which a claim that is not touched is another's to take. A network's
#: disk may show a touch a minute late.
CLAIM_SECONDS = 150.0
#: What a disk without locks of its own says.
NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


@contextmanager
def exclusive(
    lock: Path, report: ReportProgress, claim_seconds: float = CLAIM_SECONDS
) -> Iterator[int]:
    """Hold `lock` and yield its descriptor; wait, and say so, while another holds it.

    The file stays behind: a lock file that is deleted can be held twice.
    """
    make_parents(lock)
    claim = _Claim(lock.with_name(f"{lock.name}.claim"), claim_seconds)
    started = time.monotonic()
    with lock.open("a") as stream:
        while not claim.take(_acquire(stream)):
            by = claim.holder
            waiting = InstallProgress(
                index=0,
                steps=0,
                what="waiting for another installation",
                why=f"it holds {lock}" + (f", on host {by}" if by else ""),
                seconds=time.monotonic() - started,
            )
            report(waiting)
            time.sleep(POLL_SECONDS)
        with claim.kept():
            yield stream.fileno()


class _Held(Enum):
    """Who has the kernel's lock."""

    OURS = "ours"
    OTHERS = "others"
    #: The disk has no locks.
    UNKNOWN = "unknown"


def _acquire(stream: IO[str]) -> _Held:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _Held.OTHERS
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return _Held.UNKNOWN
    return _Held.OURS


@dataclass
class _Claim:
    """The file by which hosts agree; whoever has the lock of this host takes it."""

    path: Path
    #: Seconds without a touch after which it is nobody's.
    seconds: float
    #: The host that was last seen to hold it.
    holder: str = ""
    #: What stands in it while it is ours.
    _text: str = ""
    #: What was last read of it: its text and when it was touched.
    _seen: tuple[str, float] = ("", 0.0)
    #: When that was first read, monotonic.
    _since: float = 0.0

    def take(self, lock: _Held) -> bool:
        """Whether it is ours now."""
        if lock is _Held.OTHERS:
            return False
        self._text = f"{socket.gethostname()} {uuid.uuid4().hex}"
        if _create(self.path, self._text):
            return True
        seen = self._read()
        if not seen[1]:
            return False  # It has just gone: the next try may create it.
        if seen != self._seen:
            self._seen, self._since = seen, time.monotonic()
        self.holder, _, token = seen[0].partition(" ")
        # Another living process of this host would hold the lock.
        is_left = lock is _Held.OURS and self.holder == socket.gethostname()
        if not is_left and time.monotonic() - self._since < self.seconds:
            return False
        # Of several that find it abandoned, one creates this file.
        heir = self.path.with_name(f"{self.path.name}.{token}")
        if not _create(heir, self._text):
            # One that was killed in these lines left it.
            with suppress(FileNotFoundError):
                if time.time() - heir.stat().st_mtime > self.seconds:
                    heir.unlink()
            return False
        if self._read()[0] != seen[0]:
            heir.unlink()
            return False
        heir.replace(self.path)
        return True

    def _read(self) -> tuple[str, float]:
        """Its text and when it was touched; nothing where it is not there."""
        try:
            return self.path.read_text(), self.path.stat().st_mtime
        except FileNotFoundError:
            return "", 0.0

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Touch it all the while, then give it up."""
        ended = threading.Event()
        toucher = threading.Thread(target=self._touch_until, args=(ended,), daemon=True)
        toucher.start()
        try:
            yield
        finally:
            ended.set()
            toucher.join()
            if self._read()[0] == self._text:
                self.path.unlink()

    def _touch_until(self, ended: threading.Event) -> None:
        while not ended.wait(TOUCH_SECONDS):
            try:
                os.utime(self.path)
            except OSError:
                continue  # The disk may be back at the next touch.


def _create(path: Path, text: str) -> bool:
    """Whether this call made the file; a network's disk lets only one do so."""
    try:
        stream = path.open("x")
    except FileExistsError:
        return False
    try:
        with stream:
            stream.write(text)
    except OSError:
        path.unlink(missing_ok=True)  # The disk is full: the next one tries again.
        raise
    return True
