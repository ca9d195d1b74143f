"""Requests that take longer than most, and their second engine."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from modelserver.engine_client import EngineFault, RequestFault
from modelserver.messaging.requests import InferenceRequest
from modelserver.messaging.wire import COMPLETE
from modelserver.values import EngineReport, EngineState
from workers.engines.engine_slot import EngineSlot
from workers.engines.roster import Roster
from workers.requests.hedges import FEWEST, MOST_SAVED, SHARE, AnswerTimes, Hedges
from workers.requests.work import Work

FIRST = EngineReport("first", "writer", "here", EngineState.READY, incarnation=1)
FIRST = replace(FIRST, limit=4)
SECOND = replace(FIRST, id="second")


class Ground:
    """Two engines, which answer at once but for what they are told to do."""

    def __init__(self) -> None:
        self.roster = Roster("here")
        self.roster.update({"first": FIRST, "second": SECOND})
        self.hedges = Hedges(self.roster, self.attempt, self.note_fault)
        #: What each engine does with a request, where it does not answer at once.
        self.does: dict[str, Callable[[], Awaitable[Any]]] = {}
        self.asked: list[str] = []
        self.cancelled: list[str] = []
        self.faults: list[str] = []

    async def attempt(self, slot: EngineSlot, work: Work) -> Any:
        engine = slot.engine.id
        self.asked.append(engine)
        try:
            if does := self.does.get(engine):
                return await does()
            return engine
        except asyncio.CancelledError:
            self.cancelled.append(engine)
            raise

    def note_fault(self, slot: EngineSlot, *_: Any) -> None:
        self.faults.append(slot.engine.id)

    async def ask(self, **change: Any) -> Any:
        """One request to the first engine."""
        request = InferenceRequest(COMPLETE, "/v1/completions", {})
        values = {"may_be_hedged": True} | change
        work = Work(request, "writer", "writer", "", {}, "", "", 0, 1, None, **values)
        return await self.hedges.answer(self.roster.slots["first"], work)

    async def learn(self, requests: int = int(1 / SHARE)) -> None:
        """Answer so many at once: enough for one second attempt."""
        for _ in range(requests):
            await self.ask()
        self.asked.clear()


async def hang() -> Any:
    await asyncio.Event().wait()


def fails(error: Exception) -> Callable[[], Awaitable[Any]]:
    async def fail() -> Any:
        raise error

    return fail


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while True:
            if condition():
                return
            await asyncio.sleep(0)


async def outlast() -> None:
    """Let so long pass that a second engine would have been asked.

    Nothing tells that it is not: it is after microseconds here, as answers took.
    """
    await asyncio.sleep(0.05)


def test_the_first_answer_wins_and_the_other_attempt_is_cancelled():
    async def run() -> None:
        ground = Ground()
        await ground.learn()
        ground.does["first"] = hang
        assert await ground.ask() == "second"
        assert ground.cancelled == ["first"]
        assert ground.faults == []

    asyncio.run(run())


def test_the_first_engine_may_still_win():
    async def run() -> None:
        ground = Ground()
        await ground.learn()

        async def answer_late() -> str:
            await until(lambda: "second" in ground.asked)
            return "first"

        ground.does |= {"first": answer_late, "second": hang}
        assert await ground.ask() == "first"
        assert ground.cancelled == ["second"]

    asyncio.run(run())


def test_of_so_many_requests_two_in_a_hundred_get_a_second_engine():
    async def run() -> None:
        ground = Ground()
        await ground.learn(int(3 / SHARE))
        ground.does["first"] = hang
        for _ in range(3):
            assert await ground.ask() == "second"
        waiting = asyncio.create_task(ground.ask())
        await until(lambda: ground.asked.count("first") == 4)
        await outlast()
        assert ground.asked.count("second") == 3
        waiting.cancel()

    asyncio.run(run())


def test_what_is_saved_up_is_bounded():
    async def run() -> None:
        ground = Ground()
        await ground.learn(int(2 * MOST_SAVED / SHARE))
        ground.does["first"] = hang
        for _ in range(int(MOST_SAVED)):
            assert await ground.ask() == "second"
        waiting = asyncio.create_task(ground.ask())
        await until(lambda: ground.asked[-1] == "first")
        await outlast()
        assert ground.asked.count("second") == MOST_SAVED
        waiting.cancel()

    asyncio.run(run())


@pytest.mark.parametrize("case", ["no leave", "no place", "unknown size", "alone"])
def test_a_request_keeps_to_its_engine(case: str):
    async def run() -> None:
        ground, change = Ground(), {}
        await ground.learn()
        if case == "no leave":
            change = {"may_be_hedged": False}
        elif case == "unknown size":
            change = {"size": 1 << 20}
        elif case == "no place":
            for _ in range(SECOND.limit):
                ground.roster.slots["second"].begin(0.0)
        else:
            ground.roster.update({"first": FIRST})
        ground.does["first"] = hang
        waiting = asyncio.create_task(ground.ask(**change))
        await until(lambda: ground.asked)
        await outlast()
        assert ground.asked == ["first"]
        waiting.cancel()

    asyncio.run(run())


def test_a_second_engine_that_fails_does_not_harm():
    async def run() -> None:
        ground = Ground()
        await ground.learn()

        async def answer_late() -> str:
            await until(lambda: ground.faults)
            return "first"

        ground.does |= {"first": answer_late, "second": fails(EngineFault("broken"))}
        assert await ground.ask() == "first"
        assert ground.faults == ["second"]

    asyncio.run(run())


def test_the_second_engine_answers_where_the_first_one_fails_meanwhile():
    async def run() -> None:
        ground, failed = Ground(), asyncio.Event()
        await ground.learn()

        async def fail_late() -> None:
            await until(lambda: "second" in ground.asked)
            failed.set()
            raise EngineFault("broken")

        async def answer_late() -> str:
            await failed.wait()
            return "second"

        ground.does |= {"first": fail_late, "second": answer_late}
        assert await ground.ask() == "second"
        assert ground.faults == ["first"]
        ground.does["second"] = fails(EngineFault("as well"))
        await ground.learn(0)
        ground.does["first"] = fails(EngineFault("broken"))
        with pytest.raises(EngineFault, match="broken"):
            await ground.ask()

    asyncio.run(run())


def test_a_request_that_is_wrong_is_so_on_any_engine():
    async def run() -> None:
        ground = Ground()
        await ground.learn()
        ground.does |= {"first": hang, "second": fails(RequestFault("odd"))}
        with pytest.raises(RequestFault, match="odd"):
            await ground.ask()

    asyncio.run(run())


def test_a_caller_that_goes_away_ends_both_attempts():
    async def run() -> None:
        ground = Ground()
        await ground.learn()
        ground.does |= {"first": hang, "second": hang}
        asking = asyncio.create_task(ground.ask())
        await until(lambda: "second" in ground.asked)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert sorted(ground.cancelled) == ["first", "second"]

    asyncio.run(run())


def test_a_few_answers_say_nothing_of_how_long_most_take():
    times = AnswerTimes()
    for _ in range(FEWEST - 1):
        times.note((1, 1), 1.0)
    assert times.find_most((1, 1)) is None
    times.note((1, 1), 9.0)
    assert times.find_most((1, 1)) == 9.0
