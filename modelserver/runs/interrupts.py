"""Ctrl-C while a run's answers are in its caller's hands."""

import asyncio
import signal
import threading
from types import FrameType, TracebackType

from modelserver.python310 import cancelling


class InterruptWatch:
    """Knows whether Ctrl-C came; whoever handled it before still does.

    A generator that is left by an error does not hear which one it was. Watches in the
    main thread only, where signals arrive; tasks of asyncio know it themselves.
    """

    def __init__(self) -> None:
        #: Whether Ctrl-C came since the watch began.
        self.is_interrupted = False

    def __enter__(self) -> "InterruptWatch":
        self._before = signal.getsignal(signal.SIGINT)
        self._is_watching = _is_main_thread() and callable(self._before)
        if self._is_watching:
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A handler that was put over this one since still calls it.
        is_ours = signal.getsignal(signal.SIGINT) == self._note
        if self._is_watching and is_ours and _is_main_thread():
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.is_interrupted = True
        if callable(self._before):
            self._before(number, frame)


def is_cancelled(task: "asyncio.Task[object] | None") -> bool:
    """Whether a task that iterates over a run ends, or has ended, by being cancelled.

    With an answer in hand its iterator hears only that it is left.
    """
    return task is not None and (cancelling(task) > 0 or task.cancelled())


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
