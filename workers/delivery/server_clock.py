"""The time by the store's clock, which all hosts share."""

import time


class ServerClock:
    """Tells the store's time from this host's monotonic clock. Lives on the loop.

    Times are seconds since the epoch.
    """

    def __init__(self) -> None:
        #: The store's clock minus the monotonic clock, in seconds.
        self._offset = 0.0

    def set(self, now: float) -> None:
        """The store says that it is ``now``."""
        self._offset = now - time.monotonic()

    def now(self) -> float:
        """The store's time now."""
        return time.monotonic() + self._offset

    def at(self, monotonic: float) -> float:
        """The store's time at a time of the monotonic clock."""
        return monotonic + self._offset
