"""Times in a message's headers, as Celery means them."""

from datetime import UTC, datetime
from typing import Any


def seconds_of(text: str) -> float:
    """A time of ISO 8601 in seconds since the epoch; one without a zone is UTC.

    >>> seconds_of("1970-01-01T01:00:00"), seconds_of("1970-01-01T01:00:00+01:00")
    (3600.0, 0.0)
    """
    time = datetime.fromisoformat(text)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def find_due(headers: dict[str, Any]) -> float | None:
    """When a task may begin, None for at once."""
    eta = headers.get("eta")
    return seconds_of(eta) if eta else None


def has_expired(expires: str | None, now: float) -> bool:
    """Whether nobody wants the task's answer any more."""
    return expires is not None and seconds_of(expires) < now
