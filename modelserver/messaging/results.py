"""What ``delay`` and groups return: Celery's results, which can be awaited as well."""

import asyncio
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from typing import Any

from celery import Celery, states
from celery.result import AsyncResult, GroupResult, ResultSet
from kombu.utils.objects import cached_property
from vine import barrier


async def arrived(backend: Any, results: Sequence[Any]) -> None:
    """Wait for results on the running loop. Cancelled, it only stops to listen."""
    missing = {each.id: each for each in results if not each._cache}
    if not missing:
        return
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    failed: list[Exception] = []

    def on_loop(meta: dict[str, Any] | Exception) -> None:
        if isinstance(meta, Exception):
            failed.append(meta)
        elif meta["status"] in states.READY_STATES:
            missing.pop(meta["task_id"])._maybe_set_cache(meta)
        if failed or not missing:
            done.set()

    def tell(meta: dict[str, Any] | Exception) -> None:
        # Where the loop has ended, so has whoever waited.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(on_loop, meta)

    keys = [backend.backend_key(task) for task in missing]
    listener = backend.result_consumer.listener
    listener.listen(keys, tell)
    try:
        await done.wait()
    finally:
        listener.forget(keys, tell)
    if failed:
        raise failed[0]


class Answer(AsyncResult):  # type: ignore[misc]
    """A result: ``.get()`` waits for it in a thread, ``await`` on an asyncio loop."""

    def __reduce__(self) -> Any:
        args = (self.id, None, None, None, self.parent)
        return _result_of, (self.app, "AsyncResult", args)

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """The answer, once it is there; see Celery's."""
        try:
            return super().get(*args, **kwargs)
        except KeyboardInterrupt as interrupt:
            # Its message says all; the frames within Celery do not help.
            raise interrupt.with_traceback(None) from None

    wait = get

    def then(
        self, callback: Callable[..., Any], on_error: Any = None, weak: bool = False
    ) -> Any:
        """Call back with this result when it is there, in a thread of its own."""
        # A group's barrier only counts what its waiter reads.
        if not isinstance(callback, barrier):
            self._listen()
        return self.on_ready.then(callback, on_error)

    def _listen(self) -> None:
        def tell(meta: dict[str, Any] | Exception) -> None:
            if not isinstance(meta, Exception) and self._cache is None:
                self._maybe_set_cache(meta)

        key = self.backend.backend_key(self.id)
        self.backend.result_consumer.listener.listen([key], tell)

    def __await__(self) -> Generator[Any, None, Any]:
        yield from arrived(self.backend, [self]).__await__()
        return self.maybe_throw()


class _Many:
    """What sets and groups of answers have in common."""

    backend: Any
    results: list[Any]

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """All answers, read in blocks; see Celery's."""
        try:
            return super().get(*args, **kwargs)  # type: ignore[misc]
        except KeyboardInterrupt as interrupt:
            raise interrupt.with_traceback(None) from None

    def join(self, *args: Any, **kwargs: Any) -> Any:
        """The same as ``get``: one after the other is slow."""
        return self.get(*args, **kwargs)

    def then(self, callback: Any, on_error: Any = None, weak: bool = False) -> Any:
        """Call back with the whole when all are there, in a thread of its own."""
        if not isinstance(callback, barrier):
            self._on_full.finalize()  # type: ignore[attr-defined]
            for result in self.results:
                result.then(_nothing)
        return super().then(callback, on_error, weak)  # type: ignore[misc]

    def ready(self) -> bool:
        """Whether all are there, read in blocks."""
        return all(meta["status"] in states.READY_STATES for meta in self._metas())

    def waiting(self) -> bool:
        """Whether any is not there."""
        return not self.ready()

    def completed_count(self) -> int:
        """How many have succeeded, read in blocks."""
        return sum(meta["status"] == states.SUCCESS for meta in self._metas())

    def _metas(self) -> list[dict[str, Any]]:
        flat = list(_flat(self.results))
        for _ in self.backend.look([each for each in flat if not each._cache]):
            pass
        pending = {"status": states.PENDING}
        return [each._cache or pending for each in flat]

    def __await__(self) -> Generator[Any, None, Any]:
        yield from arrived(self.backend, list(_flat(self.results))).__await__()
        return self.get()


def _flat(results: Sequence[Any]) -> Iterator[Any]:
    """The single results of groups within groups."""
    for result in results:
        if isinstance(result, ResultSet):
            yield from _flat(result.results)
        else:
            yield result


def _result_of(app: Celery, kind: str, args: tuple[Any, ...]) -> Any:
    """A result that was pickled."""
    return getattr(app, kind)(*args)


def _nothing(_: Any) -> None:
    """A callback for a result that is only to be listened for."""


class Answers(_Many, ResultSet):  # type: ignore[misc]
    """A set of results."""

    def __reduce__(self) -> Any:
        return _result_of, (self.app, "ResultSet", (self.results,))


class GroupAnswers(_Many, GroupResult):  # type: ignore[misc]
    """What a group returns."""

    def __reduce__(self) -> Any:
        args = (self.id, self.results, self.parent)
        return _result_of, (self.app, "GroupResult", args)


class ClientApplication(Celery):  # type: ignore[misc]
    """An application whose results can be awaited, and which survives a fork.

    It is never the current application, which is what Celery pickles tasks and results
    for: a task would be unknown there, and a result would be looked for elsewhere.
    """

    #: What gives it in any process of the fleet, where there is such a function.
    found_by: Callable[[], Celery] | None = None

    def __reduce__(self) -> Any:
        if self.found_by is None:
            raise TypeError(
                f"{self!r} has settings of its own, so neither it nor what is its own "
                "can be pickled; pass ids, and read results by app.AsyncResult(id)"
            )
        return self.found_by, ()

    @cached_property
    def AsyncResult(self) -> Any:
        """The class of one result."""
        return self.subclass_with_self(Answer, keep_reduce=True)

    @cached_property
    def ResultSet(self) -> Any:
        """The class of a set of results."""
        return self.subclass_with_self(Answers, keep_reduce=True)

    @cached_property
    def GroupResult(self) -> Any:
        """The class of a group's result."""
        return self.subclass_with_self(GroupAnswers, keep_reduce=True)
