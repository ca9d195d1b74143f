"""Synchronous code that waits on a loop."""

import asyncio
from typing import Any

import pytest

from workers import bridge


async def soon(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


async def fail(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


def test_a_function_that_waits_gets_what_it_waits_for():
    def add(a: int, *, b: int) -> int:
        return bridge.wait(soon(a)) + bridge.wait(soon(b))

    assert asyncio.run(bridge.run(add, (1,), {"b": 2})) == 3


def test_a_function_that_does_not_wait_just_runs():
    assert asyncio.run(bridge.run(lambda: 7)) == 7


def test_what_an_awaitable_raises_is_raised_where_it_was_waited_for():
    def careful() -> str:
        try:
            bridge.wait(fail(KeyError("gone")))
        except KeyError as error:
            return f"caught {error}"
        return "nothing"

    assert asyncio.run(bridge.run(careful)) == "caught 'gone'"


def test_what_the_function_raises_reaches_the_one_who_drives_it():
    def careless() -> None:
        bridge.wait(soon(1))
        raise ValueError("after the wait")

    with pytest.raises(ValueError, match="after the wait"):
        asyncio.run(bridge.run(careless))


def test_only_inside_a_run_may_a_function_wait():
    assert not bridge.inside()
    assert asyncio.run(bridge.run(bridge.inside))
    assert not bridge.inside()


def test_functions_wait_side_by_side():
    order: list[str] = []

    def step(name: str, first: asyncio.Event, then: asyncio.Event) -> None:
        bridge.wait(first.wait())
        order.append(name)
        then.set()

    async def both() -> None:
        begin, middle, end = asyncio.Event(), asyncio.Event(), asyncio.Event()
        second = asyncio.create_task(bridge.run(step, ("second", middle, end)))
        first = asyncio.create_task(bridge.run(step, ("first", begin, middle)))
        begin.set()
        await asyncio.gather(first, second)

    asyncio.run(both())
    assert order == ["first", "second"]


def test_a_cancellation_runs_the_functions_own_clean_up():
    ended: list[str] = []

    def careful() -> None:
        try:
            bridge.wait(asyncio.Event().wait())
        finally:
            ended.append("cleaned up")

    async def cancelled() -> None:
        task = asyncio.create_task(bridge.run(careful))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert ended == ["cleaned up"]


def test_a_cancellation_may_be_translated_into_an_error():
    def tell() -> str:
        try:
            bridge.wait(asyncio.Event().wait())
        except TimeoutError:
            return "timed out"
        return "nothing"

    def translate(error: BaseException) -> BaseException:
        is_end = isinstance(error, asyncio.CancelledError)
        return TimeoutError() if is_end else error

    async def cancelled() -> str:
        task = asyncio.create_task(bridge.run(tell, translate=translate))
        await asyncio.sleep(0)
        task.cancel()
        return await task

    assert asyncio.run(cancelled()) == "timed out"
