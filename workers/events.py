"""Thins task events: at a thousand requests a second nobody reads them all."""

import time
from collections import OrderedDict
from typing import Any

from celery.app.events import Events as CeleryEvents
from celery.events.dispatcher import EventDispatcher

#: Events that end a task; after one of them it is forgotten.
LAST = frozenset(
    {"task-succeeded", "task-failed", "task-rejected", "task-revoked", "task-retried"}
)
#: Tasks whose events are followed at once; the oldest gives way.
FOLLOWED_MOST = 10_000


class Thinning:
    """Lets through so many tasks a second, each with all of its events.

    Failures always pass, and so do events that are not about a task.
    """

    def __init__(self, tasks_per_second: float) -> None:
        self._rate = tasks_per_second
        self._followed: OrderedDict[str, None] = OrderedDict()
        self._second = 0
        self._used = 0.0

    def wants(self, type: str, task: str) -> bool:
        """Whether an event of a task that was received passes."""
        return task in self._followed or type == "task-failed"

    def passes(self, type: str, task: str | None) -> bool:
        """Whether this event is sent; decides about a task as it is received."""
        if task is None or not type.startswith("task-"):
            return True
        if type == "task-received" and self._follow():
            self._followed[task] = None
            if len(self._followed) > FOLLOWED_MOST:
                self._followed.popitem(last=False)
        wanted = self.wants(type, task)
        if type in LAST:
            self._followed.pop(task, None)
        return wanted

    def _follow(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._used = second, 0.0
        self._used += 1
        return self._used <= self._rate


class Dispatcher(EventDispatcher):  # type: ignore[misc]
    """Celery's dispatcher, thinned as the fleet file says.

    A class and not an attribute: Celery takes ``send`` from it when it starts.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        rules = self.app.modelserver_settings.fleet.rules
        self.thinning = Thinning(rules.events_per_second)

    def send(self, type: str, **fields: Any) -> Any:
        """Send, or not."""
        if self.thinning.passes(type, fields.get("uuid")):
            return super().send(type, **fields)
        return None


class BatchedEvents(CeleryEvents):  # type: ignore[misc]
    """Celery's events with the dispatcher above."""

    dispatcher_cls = Dispatcher
