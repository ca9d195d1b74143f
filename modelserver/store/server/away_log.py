"""What a part that tries again and again says of a server that is away."""

import logging
import time
from collections.abc import Callable
from typing import Any

#: After so many seconds it is said again that the server is away, and why by now.
SAID_AGAIN_SECONDS = 60.0
#: How often a connection to a server that is away is tried, in seconds.
CONNECT_AGAIN_SECONDS = 1.0


class AwayLog:
    """Logs that Redis is away when it begins, once a minute, and when it is over.

    Parts try again several times a second, for hours if need be.
    """

    def __init__(self, log: logging.Logger, what: str) -> None:
        """``what`` waits meanwhile, as in "pulling"."""
        self._log = log
        self._what = what
        self._since: float | None = None
        self._said_at = 0.0

    def away(self, error: BaseException, now: float) -> None:
        """It failed once more at this time, in seconds of a clock that runs evenly."""
        if self._since is None:
            self._since = self._said_at = now
            self._log.warning("Redis away: %s waits (%s)", self._what, error)
        elif now - self._said_at >= SAID_AGAIN_SECONDS:
            self._said_at = now
            said = "Redis away for %.0f s: %s waits (%s)"
            self._log.warning(said, now - self._since, self._what, error)

    def back(self, now: float) -> None:
        """It went well at this time."""
        if self._since is not None:
            said = "Redis back after %.1f s: %s goes on"
            self._log.warning(said, now - self._since, self._what)
            self._since = None

    def connect(
        self, connection: Any, between: Callable[[], None] | None = None
    ) -> Any:
        """Celery's connection, connected, however long it takes; it is returned.

        Celery itself tries more and more seldom, up to every 30 s, and ends after 100
        tries. ``between`` is called between two of them and may raise.
        """
        connection = connection.ensure_connection(
            lambda error, _: self.away(error, time.monotonic()),
            interval_start=CONNECT_AGAIN_SECONDS,
            interval_step=0,
            callback=between,
        )
        self.back(time.monotonic())
        return connection
