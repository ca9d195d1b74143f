"""A process that is stopped and goes on, again and again."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def stuttering(pid: int, seconds: float, every: float) -> Iterator[None]:
    """Stop a process and all of its group for ``seconds`` of ``every`` seconds.

    Until it is gone, or until the block ends; then it goes on.
    """
    over = threading.Event()

    def run() -> None:
        with suppress(ProcessLookupError):
            while not over.is_set():
                _signal(pid, signal.SIGSTOP)
                over.wait(seconds)
                _signal(pid, signal.SIGCONT)
                over.wait(every - seconds)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(every)


def _signal(pid: int, number: signal.Signals) -> None:
    group = os.getpgid(pid)
    if group == os.getpgid(0):
        os.kill(pid, number)  # The group is that of the run itself.
    else:
        os.killpg(group, number)
