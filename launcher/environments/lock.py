"""One installation of an environment at a time, across processes."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from launcher.environments.children import InstallProgress, Report

POLL_SECONDS = 0.5


@contextmanager
def exclusive(lock: Path, report: Report) -> Iterator[int]:
    """Hold `lock` and yield its descriptor; wait, and say so, while another holds it.

    The file stays behind: a lock file that is deleted can be held twice.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as stream:
        started = time.monotonic()
        while not _acquire(stream):
            waiting = InstallProgress(
                index=0,
                steps=0,
                what="waiting for another installation",
                why=f"it holds {lock}",
                seconds=time.monotonic() - started,
            )
            report(waiting)
            time.sleep(POLL_SECONDS)
        yield stream.fileno()


def _acquire(stream: IO[str]) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
