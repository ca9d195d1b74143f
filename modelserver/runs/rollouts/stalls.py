"""An event loop that stands still: found from another thread, and told where."""

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Sequence

#: A loop says that it lives every so many seconds.
BEAT_SECONDS = 0.5
#: A loop that was silent for so many seconds stands still.
STALL_SECONDS = 5.0

log = logging.getLogger(__name__)


class StallWatch:
    """Warns once each time that a loop stands still. ``file`` has the rows' function.

    ``begin`` and ``end`` are called in the loop, ``look`` by another thread.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._beaten_at = time.monotonic()
        self._thread = 0
        self._handle: asyncio.TimerHandle | None = None
        self._is_told = False

    def begin(self) -> None:
        """Watch this loop."""
        self._thread = threading.get_ident()
        self._beat()

    def end(self) -> None:
        """Watch no more."""
        if self._handle is not None:
            self._handle.cancel()
        self._thread = 0

    def _beat(self) -> None:
        self._beaten_at = time.monotonic()
        loop = asyncio.get_running_loop()
        self._handle = loop.call_later(BEAT_SECONDS, self._beat)

    def look(self) -> None:
        """Warn if it stands still, and where."""
        seconds = time.monotonic() - self._beaten_at
        if seconds < STALL_SECONDS:
            self._is_told = False
            return
        frame = sys._current_frames().get(self._thread)
        if self._is_told or frame is None:
            return
        self._is_told = True
        log.warning(stall_text(seconds, traceback.extract_stack(frame), self._file))


def stall_text(
    seconds: float, stack: Sequence[traceback.FrameSummary], file: str
) -> str:
    """Where a loop stands, by the innermost line of the user's own file.

    >>> frame = traceback.FrameSummary("solve.py", 7, "solve", line="time.sleep(9)")
    >>> print(stall_text(5.0, [frame], "solve.py"))
    the event loop has stood still for 5 s, and all rows with it, in solve (solve.py, \
line 7: time.sleep(9)); use what can be awaited, or await asyncio.to_thread(...)
    """
    own = [each for each in stack if each.filename == file]
    at = (own or list(stack))[-1]
    return (
        f"the event loop has stood still for {seconds:.0f} s, and all rows with it, in "
        f"{at.name} ({at.filename}, line {at.lineno}: {at.line}); use what can be "
        "awaited, or await asyncio.to_thread(...)"
    )
