"""How a command that goes on until it is stopped hears of it."""

import signal
from types import FrameType


class StoppedBySignal(Exception):
    """A signal asked this program to stop."""


def stop_by_signal() -> None:
    """Raise StoppedBySignal in the main thread on a signal that ends programs, once.

    SIGHUP, as of a terminal that is closed, is one, unless it is ignored (nohup).
    """
    ends = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        ends.append(signal.SIGHUP)

    def stop(number: int, frame: FrameType | None) -> None:
        for each in ends:
            # A second Ctrl-C must not leave half of the programs running.
            signal.signal(each, signal.SIG_IGN)
        raise StoppedBySignal(signal.Signals(number).name)

    for each in ends:
        signal.signal(each, stop)
