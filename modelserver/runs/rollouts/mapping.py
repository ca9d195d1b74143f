"""``map_rows``: an async function of each row, thousands at once."""

import asyncio
import atexit
import logging
import weakref
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from concurrent.futures import TimeoutError as FutureTimeoutError
from os import PathLike
from pathlib import Path
from typing import Any

from celery import Celery

from modelserver.api import default_client
from modelserver.errors import RequestError
from modelserver.parameters import check_deadline, check_priority, is_whole, plain
from modelserver.runs.interrupts import InterruptWatch, is_cancelled
from modelserver.runs.mapping import ON_ERROR
from modelserver.runs.progress import ProgressBar, open_bar
from modelserver.runs.prompts import check_many
from modelserver.runs.rollouts.loops import LoopThread
from modelserver.runs.rollouts.rows import RowOutcome, is_async, name_of
from modelserver.runs.rollouts.running import RowFunctions

#: So many rows are under way at once by default.
AT_ONCE = 1_000
#: Seconds that an interrupted run takes to end in order; a function that blocks its
#: loop is left behind then.
END_SECONDS = 10.0

log = logging.getLogger(__name__)


def map_rows(
    function: Callable[[Any], Awaitable[Any]],
    rows: Iterable[Any],
    *,
    journal: str | PathLike[str] | None = None,
    at_once: int = AT_ONCE,
    ordered: bool = True,
    on_error: str = "raise",
    deadline: float | None = None,
    priority: int | None = None,
    progress: bool | None = None,
    app: Celery | None = None,
) -> "RowRun":
    """Run an async function for each row: ``for done in map_rows(solve, rows): ...``.

    The function awaits ``complete.aio``, ``chat.aio`` and ``embed.aio`` as often as it
    likes, and whatever else can be awaited; these calls travel in bulk. ``at_once``
    rows are under way at a time. The outcomes come in the order of the rows unless
    ``ordered`` is false, by ``for`` or by ``async for``: by ``for`` the function runs
    in a loop of its own, by ``async for`` in the caller's. ``on_error`` says what a row
    does whose function raises: "raise" its error, "return" an outcome with ``error``,
    or "skip". ``deadline`` is in seconds from a row's start. ``journal`` names a file:
    the same call finds in it what rows returned, and what calls of the others were
    answered. Nothing is started before the first outcome is asked for.
    """
    if on_error not in ON_ERROR:
        raise RequestError(
            f"on_error must be one of {', '.join(ON_ERROR)}, not {on_error!r}"
        )
    check_many(rows, "map_rows", "rows")
    priority, deadline = check_priority(priority), check_deadline(deadline)
    at_once = plain(at_once, "at_once")
    if not is_whole(at_once) or at_once < 1:
        raise RequestError(f"at_once must be 1 or more, not {at_once!r}")
    if not is_async(function):
        raise RequestError(
            "map_rows() takes an async function, as in `async def solve(row): ...`, "
            f"and {name_of(function)} is none"
        )
    path = None if journal is None else Path(journal)
    run = RowFunctions(
        *(app or default_client(), function, rows, path),
        at_once=at_once,
        is_ordered=ordered,
        deadline=deadline,
        priority=priority,
    )
    return RowRun(run, on_error, progress)


class RowRun:
    """The outcomes of one run, to be iterated over once."""

    def __init__(self, run: RowFunctions, on_error: str, progress: bool | None) -> None:
        self._run = run
        self._on_error = on_error
        self._progress = progress
        self._is_begun = False

    @property
    def done(self) -> int:
        """How many rows are done."""
        return self._run.done

    @property
    def failed(self) -> int:
        """How many of these are errors."""
        return self._run.failed

    @property
    def total(self) -> int | None:
        """How many rows there are, None where that is not known before."""
        return self._run.total

    def __iter__(self) -> Iterator[RowOutcome]:
        self._begin()
        outcomes = self._outcomes()
        # One that is left half-way ends with the program, before its threads do.
        atexit.register(_close, weakref.ref(outcomes))
        return outcomes

    def _outcomes(self) -> Generator[RowOutcome, None, None]:
        loop, bar, watch = LoopThread("modelserver rows"), self._bar(), InterruptWatch()
        is_over = is_ended = False
        try:
            with watch:
                loop.call(self._run.begin())
                while block := loop.call(self._run.next_block()):
                    bar.advance(*_counts(block))
                    yield from self._told(block)
                self._check()
                is_over = True
        except KeyboardInterrupt:
            is_ended = True
            raise KeyboardInterrupt(self._interrupted(loop)) from None
        except GeneratorExit:
            if watch.is_interrupted:
                is_ended = True
                log.warning(self._interrupted(loop))
            raise
        finally:
            bar.close()
            work = None if is_ended else self._run.end(cancel=not is_over)
            loop.end(work, END_SECONDS)

    def _interrupted(self, loop: LoopThread) -> str:
        try:
            loop.call(self._run.end(cancel=True), END_SECONDS)
        except (TimeoutError, FutureTimeoutError):
            return f"{self._run.said()}; a function that blocks was left behind"
        return self._run.said()

    async def __aiter__(self) -> AsyncIterator[RowOutcome]:
        self._begin()
        bar, is_over, owner = self._bar(), False, asyncio.current_task()
        try:
            await self._run.begin()
            while block := await self._run.next_block():
                bar.advance(*_counts(block))
                for outcome in self._told(block):
                    yield outcome
            self._check()
            is_over = True
        finally:
            bar.close()
            try:
                await self._run.end(cancel=not is_over)
            finally:
                if is_cancelled(owner) and not is_over:
                    log.warning(self._run.said())

    def _begin(self) -> None:
        if self._is_begun:
            raise RuntimeError("a run is iterated over once; call map_rows() again")
        self._is_begun = True

    def _check(self) -> None:
        """Raise what ended the run, outside of the loop: it may end a program."""
        if self._run.failure is not None:
            raise self._run.failure

    def _bar(self) -> ProgressBar:
        return open_bar("rows", self._run.total, self._progress)

    def _told(self, block: list[RowOutcome]) -> Iterator[RowOutcome]:
        """What the caller sees of these. Raises a row's error where that is asked."""
        for outcome in block:
            if outcome.error is None or self._on_error == "return":
                yield outcome
            elif self._on_error == "raise":
                raise outcome.error


def _close(outcomes: "weakref.ref[Generator[RowOutcome, None, None]]") -> None:
    if (found := outcomes()) is not None:
        found.close()


def _counts(block: list[RowOutcome]) -> tuple[int, int]:
    return len(block), sum(each.error is not None for each in block)
