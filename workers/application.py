"""Celery's application, but for what would cost each request of a worker too much."""

from datetime import datetime

from celery import Celery


class Application(Celery):  # type: ignore[misc]
    """The application of workers."""

    def now(self) -> datetime:
        """The time in the application's zone, made aware of it once and not twice."""
        return datetime.now(self.timezone)
