"""Beat's scheduler, which waits for a server that is away without a word too many."""

import time
from typing import Any

from celery.beat import PersistentScheduler, ScheduleEntry, SchedulingError
from celery.utils.log import get_logger
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from modelserver.store.server.away_log import AwayLog

logger = get_logger(__name__)

#: What a publication fails with where the server does not take it.
AWAY = (OperationalError, RedisError, OSError)


class SteadyScheduler(PersistentScheduler):  # type: ignore[misc]
    """Celery's own, but for what it does while Redis is away.

    Celery's ends after 100 tries to connect, and logs two tracebacks for each tick that
    it could not publish.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._away_log = AwayLog(logger, "steering")
        super().__init__(*args, **kwargs)

    def apply_entry(self, entry: ScheduleEntry, producer: Any = None) -> None:
        """Publish the task of an entry; what cannot be comes with the next tick."""
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except SchedulingError as error:
            if not isinstance(error.__context__, AWAY):
                logger.exception("%s cannot be published", entry.name)
                return
            self._away_log.away(error.__context__, time.monotonic())
        else:
            self._away_log.back(time.monotonic())

    def _ensure_connected(self) -> Any:
        return self._away_log.connect(self.connection)
