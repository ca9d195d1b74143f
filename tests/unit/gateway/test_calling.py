"""Requests of the gateway, followed to their ends."""

import asyncio
from typing import Any

from modelserver.gateway.calling import until_answered


class DeafArrivals:
    """Parts of an answer whose reading misses that it is cancelled.

    As ``asyncio.wait_for`` does in Python 3.11, by which Redis' client sends.
    """

    async def next(self) -> list[dict[str, Any]]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            asyncio.current_task().uncancel()  # type: ignore[union-attr]
        return [{"number": 1}]

    async def rest(self) -> list[dict[str, Any]]:
        return [{"number": 2}]


def test_parts_that_were_read_as_the_answer_came_are_told():
    async def follow() -> list[dict[str, Any]]:
        answer = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.1, answer.set_result, {"choices": []})
        arrivals: Any = DeafArrivals()
        news = [each async for each in until_answered(0, arrivals, answer)]
        return [part for each in news for part in each.parts]

    assert asyncio.run(asyncio.wait_for(follow(), 30)) == [{"number": 1}, {"number": 2}]
