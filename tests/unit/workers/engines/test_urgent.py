"""Filler leaves places to urgent requests, as many as these took of late."""

import asyncio
import time
from contextlib import suppress

from tests.unit.workers.engines.test_roster import BIG, begin, roster
from workers.engines.urgent import MEMORY_SECONDS, UrgentRequests


def test_what_is_remembered_does_not_grow_with_the_rate():
    urgent = UrgentRequests()
    for place in range(100_000):
        urgent.begin("m")
        urgent.end("m", place / 1000, place / 1000 + 0.002)
    urgent.free_places("m", 64, now=100.0)
    assert len(urgent._ended["m"]) <= MEMORY_SECONDS + 1


def test_running_ones_have_their_places():
    urgent = UrgentRequests()
    urgent.begin("m")
    urgent.end("m", 0.0, 60.0)
    assert urgent.free_places("m", 16, now=60.0) == 3
    urgent.begin("m")
    urgent.begin("m")
    assert urgent.free_places("m", 16, now=60.0) == 1
    assert urgent.free_places("other", 16, now=60.0) == 0


def test_filler_leaves_half_of_the_places_at_most():
    urgent = UrgentRequests()
    for _ in range(10):
        urgent.begin("m")
        urgent.end("m", 0.0, 60.0)
    assert urgent.free_places("m", 8, now=60.0) == 4


def test_filler_waits_where_an_urgent_request_finds_a_place():
    async def main() -> tuple[bool, bool]:
        here = roster(BIG)
        now = time.monotonic()
        here.urgent.begin("writer")
        here.urgent.end("writer", now - 60.0, now)
        begin(here.slots["big"], 5)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await here.admit("writer", is_filler=True)
                return True, False
        return False, bool(await here.admit("writer"))

    assert asyncio.run(main()) == (False, True)


def test_an_urgent_request_goes_before_filler_that_waits_longer():
    async def main() -> list[str]:
        here, order = roster(BIG), list[str]()
        begin(here.slots["big"], 8)

        async def wait(name: str, is_filler: bool) -> None:
            slot = await here.admit("writer", is_filler=is_filler)
            begin(slot, 1)
            order.append(name)

        async with asyncio.TaskGroup() as group:
            group.create_task(wait("filler", is_filler=True))
            await asyncio.sleep(0)
            group.create_task(wait("urgent", is_filler=False))
            await asyncio.sleep(0)
            for number in (1, 2):
                here.slots["big"].end(number, time.monotonic(), well=True)
                here.release("writer")
                await asyncio.sleep(0)
        return order

    assert asyncio.run(main()) == ["urgent", "filler"]
