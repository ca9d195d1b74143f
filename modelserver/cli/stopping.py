"""How a command that goes on until it is stopped hears of it."""

import signal
from types import FrameType


class StoppedBySignal(Exception):
    """A signal asked this program to stop."""


def stop_by_signal() -> None:
    """Raise StoppedBySignal in the main thread on SIGINT and SIGTERM, once."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            # A second Ctrl-C must not leave half of the programs running.
            signal.signal(each, signal.SIG_IGN)
        raise StoppedBySignal(signal.Signals(number).name)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, stop)
