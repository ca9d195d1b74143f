"""Runs synchronous code on an asyncio loop, letting it wait for awaitables.

Celery's tracer is a plain function that calls the task, stores its result and sends its
signals. In a greenlet it can stay as it is: wherever something inside it has to wait,
``wait`` hands the awaitable to the coroutine that drives the greenlet.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

T = TypeVar("T")


class _Bridged(greenlet):  # type: ignore[misc]
    """A greenlet that a coroutine drives."""


def inside() -> bool:
    """Whether the caller runs where it may ``wait``."""
    return isinstance(getcurrent(), _Bridged)


def wait(awaitable: Awaitable[T]) -> T:
    """Wait for an awaitable from inside ``run``; raises what it raises."""
    result: T = getcurrent().parent.switch(awaitable)
    return result


async def run(
    function: Callable[..., T],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    translate: Callable[[BaseException], BaseException] = lambda error: error,
) -> T:
    """Call ``function``, awaiting whatever it passes to ``wait``.

    What an awaitable raises, a cancellation too, is raised inside the function at the
    place where it waits, as what ``translate`` makes of it.
    """
    child = _Bridged(function)
    step = child.switch(*args, **(kwargs or {}))
    while not child.dead:
        try:
            value = await step
        except BaseException as error:
            step = child.throw(translate(error))
        else:
            step = child.switch(value)
    result: T = step
    return result
