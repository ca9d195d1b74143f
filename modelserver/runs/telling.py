"""Tells in Redis how far a run of this program is, so that others see it."""

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from redis.exceptions import RedisError

from modelserver.errors import ModelserverError
from modelserver.settings import Settings
from modelserver.store import Store, connect
from modelserver.store.runs.programs import (
    ProgramRun,
    ProgramRunState,
    tell_program_run,
)
from modelserver.user import find_user

_log = logging.getLogger(__name__)

#: It is told so often, in seconds; a run that is over sooner is not told of.
TOLD_SECONDS = 2.0
#: Its rate is that of so many of these times.
RATE_TIMES = 30
#: Seconds that one command may take.
COMMAND_SECONDS = 2.0
#: The end of a run waits no longer until that is told, in seconds.
END_SECONDS = 3.0


class Pace:
    """How fast rows are done of late, whatever a journal had of them at the beginning.

    >>> pace = Pace(0.0, 0)
    >>> pace.note(2.0, 900), pace.note(4.0, 920)
    (450.0, 230.0)
    >>> [pace.note(4.0 + 2 * n, 920 + 20 * n) for n in range(1, RATE_TIMES)][-1]
    10.0
    """

    def __init__(self, now: float, done: int) -> None:
        self._marks = deque([(now, done)], maxlen=RATE_TIMES + 1)

    def note(self, now: float, done: int) -> float:
        """Rows a second, now that so many are done."""
        self._marks.append((now, done))
        since, before = self._marks[0]
        return (done - before) / max(now - since, 1e-6)


class RunTeller:
    """Tells of one run in a thread of its own, also while its caller is busy.

    ``look`` gives how many rows are done, and how many of these failed; from another
    thread. ``source`` is what has the rows, this program where nothing is named. Where
    Redis does not answer nothing is told, and the run goes on.
    """

    def __init__(
        self,
        settings: Settings,
        run: str,
        rows: tuple[str, int | None],
        look: Callable[[], tuple[int, int]],
        source: str = "",
    ) -> None:
        what, total = rows
        self._settings = settings
        self._look = look
        source = source or _find_program(sys.argv)
        own = (settings.host, find_user(), os.getpid(), source)
        self._run = ProgramRun(run, what, total, 0, 0, *own)
        self.id = run
        #: Whether the last try to tell of it failed.
        self._failed = False
        #: How it has ended, "" before.
        self._end = ""
        self._ended = threading.Event()
        self._pace = Pace(time.monotonic(), look()[0])
        self._store: Store | None = None
        self._thread = threading.Thread(
            target=self._work, name="modelserver telling", daemon=True
        )
        self._thread.start()

    def end(self, is_over: bool) -> None:
        """Say that the run has ended, to its end or before."""
        stopped, completed = ProgramRunState.STOPPED, ProgramRunState.COMPLETED
        self._end = str(completed if is_over else stopped)
        self._ended.set()
        self._thread.join(END_SECONDS)

    def _work(self) -> None:
        is_told = False
        try:
            while not (is_over := self._ended.wait(TOLD_SECONDS)) or is_told:
                is_told = self._try_telling() or is_told
                if is_over:
                    return
        finally:
            if self._store is not None:
                self._store.client.close()

    def _try_telling(self) -> bool:
        """Tell; where that fails, say so once in the log, and try again later."""
        try:
            self._tell()
        except (ModelserverError, RedisError) as error:
            level = logging.DEBUG if self._failed else logging.INFO
            _log.log(level, "run %s is not shown to others: %s", self.id, error)
            self._failed = True
            return False
        self._failed = False
        return True

    def _tell(self) -> None:
        if self._store is None:
            self._store = connect(self._settings, COMMAND_SECONDS, 0)
        done, failed = self._look()
        now = self._store.now()
        self._run = replace(
            self._run,
            done=done,
            failed=failed,
            rate=self._pace.note(time.monotonic(), done),
            began_at=self._run.began_at or now - TOLD_SECONDS,
            told_at=now,
            end=self._end,
        )
        tell_program_run(self._store, self._run)


def _find_program(argv: Sequence[str]) -> str:
    """The name of a program's file, "" where it was typed in.

    >>> _find_program(["/srv/night.py", "x"]), _find_program(["-c"]), _find_program([])
    ('night.py', '', '')
    """
    name = argv[0] if argv else ""
    return "" if name.startswith("-") else Path(name).name
