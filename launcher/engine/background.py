"""What an engine's keeper does beside the loop: one work and one question at a time."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class BackgroundTasks:
    """Runs a keeper's tasks and has the loop woken when one is done.

    A work runs to its end; a question may be dropped at any time.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._work: asyncio.Task[None] | None = None
        self._question: asyncio.Task[None] | None = None

    @property
    def at_work(self) -> bool:
        """Whether a launch, a stop or a clearing-up is under way."""
        return self._work is not None

    @property
    def asking(self) -> bool:
        """Whether the engine is being asked for a token."""
        return self._question is not None

    def start_work(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin a work; the one before must have been collected."""
        self._work = self._begin(work)

    def start_question(self, question: Coroutine[Any, Any, None]) -> None:
        """Begin a question; the one before must have been collected."""
        self._question = self._begin(question)

    def _begin(self, chore: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(chore)
        task.add_done_callback(lambda _: self._wake())
        return task

    def drop_question(self) -> None:
        """Want the answer no longer."""
        if self._question is not None:
            self._question.cancel()
            self._question = None

    def collect(self) -> BaseException | None:
        """Take what is done away; returns an error that nobody thought of."""
        done = [task for task in (self._work, self._question) if task and task.done()]
        if self._work in done:
            self._work = None
        if self._question in done:
            self._question = None
        errors = [task.exception() for task in done]
        return next((error for error in errors if error is not None), None)
