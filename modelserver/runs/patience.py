"""A Redis that does not answer, borne for a while."""

import time
from collections.abc import Callable

from modelserver.errors import StoreFullError, StoreUnreachableError

#: Seconds between two tries where Redis does not answer.
AGAIN_SECONDS = 0.5


class Patience:
    """Tries calls of Redis. It may be silent for so many seconds, None for ever.

    At the first call of all its error is raised at once.
    """

    def __init__(self, seconds: float | None = 60.0) -> None:
        self._seconds = seconds
        self._failing_since = 0.0
        self._is_reached = False
        #: Why nothing is sent or received now, "" where it is.
        self.trouble = ""

    def try_call(self, call: Callable[..., object], *arguments: object) -> bool:
        """Whether it went well; raises where it has not for too long."""
        try:
            call(*arguments)
        except (StoreUnreachableError, StoreFullError) as error:
            now = time.monotonic()
            self._failing_since = self._failing_since or now
            self.trouble = str(error)
            waited = now - self._failing_since
            if self._seconds is not None and waited > self._seconds:
                raise
            if not self._is_reached:
                raise
            return False
        self._failing_since, self.trouble, self._is_reached = 0.0, "", True
        return True
