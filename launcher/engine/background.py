"""What an engine's keeper does beside the loop: one job and one question at a time."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from launcher.host.shortages import find_shortage
from modelserver.policy.lifecycle import Died


def death_by(error: BaseException) -> Died:
    """What is said of an engine at whose task the launcher failed."""
    shortage = find_shortage(error)
    return Died(shortage or f"the launcher failed: {error!r}", may_heal=bool(shortage))


class BackgroundTasks:
    """Runs a keeper's tasks, and wakes the loop when one is done.

    A job (a launch, a stop) runs to its end; a question may be dropped at any time.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._job: asyncio.Task[None] | None = None
        self._question: asyncio.Task[None] | None = None

    @property
    def has_job(self) -> bool:
        """Whether a launch, a stop or a clearing-up runs."""
        return self._job is not None

    @property
    def has_question(self) -> bool:
        """Whether the engine is being asked for a token."""
        return self._question is not None

    def start_job(self, job: Coroutine[Any, Any, None]) -> None:
        """Start a job; the one before must have been collected."""
        self._job = self._start(job)

    def start_question(self, question: Coroutine[Any, Any, None]) -> None:
        """Start a question; the one before must have been collected."""
        self._question = self._start(question)

    def _start(self, job: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(job)
        task.add_done_callback(lambda _: self._wake())
        return task

    def drop_question(self) -> None:
        """Cancel the question."""
        if self._question is not None:
            self._question.cancel()
            self._question = None

    def collect(self) -> BaseException | None:
        """Take away what is done; returns an error that it did not handle, if any."""
        done = [task for task in (self._job, self._question) if task and task.done()]
        if self._job in done:
            self._job = None
        if self._question in done:
            self._question = None
        errors = [task.exception() for task in done]
        return next((error for error in errors if error is not None), None)
