"""Suspects: how many run at once, and who died together."""

import asyncio

from tests.unit.workers.engines.test_roster import BIG, SMALL, roster
from workers.requests.crashes import Crashes, suspects_at_once


def most_at_once(crashes: Crashes, number: int, at_once: int) -> int:
    """How many of so many suspects ran at the same time, at most."""

    async def run_all() -> int:
        running = most = 0

        async def run() -> None:
            nonlocal running, most
            async with crashes.lane("writer", at_once):
                running += 1
                most = max(most, running)
                await asyncio.sleep(0.001)
                running -= 1

        await asyncio.gather(*[run() for _ in range(number)])
        return most

    return asyncio.run(run_all())


def test_each_engine_gets_so_many_suspects_at_a_time():
    assert most_at_once(Crashes(roster(BIG)), 20, at_once=4) == 4
    assert most_at_once(Crashes(roster(BIG, SMALL)), 20, at_once=4) == 8
    assert most_at_once(Crashes(roster()), 20, at_once=1) == 1


def test_a_lone_suspect_runs_alone_among_suspects_that_may_be_many():
    async def run() -> list[str]:
        crashes, order = Crashes(roster(BIG)), []

        async def suspect(name: str, at_once: int) -> None:
            async with crashes.lane("writer", at_once):
                order.append(f"{name} begins")
                await asyncio.sleep(0.001)
                order.append(f"{name} ends")

        await asyncio.gather(suspect("lone", 1), suspect("one of many", 16))
        return order

    assert asyncio.run(run())[:2] == ["lone begins", "lone ends"]


def test_a_death_names_suspects_and_others():
    async def run() -> tuple[int, int]:
        here = roster(BIG)
        crashes, slot = Crashes(here), here.slots["big"]
        found = [crashes.find_death(slot, f"s{i}", suspect=True) for i in range(3)]
        found += [crashes.find_death(slot, f"o{i}", suspect=False) for i in range(5)]
        here.died = {"big": BIG.incarnation}
        deaths = await asyncio.gather(*found)
        assert all(death is deaths[0] for death in deaths)
        assert deaths[0] is not None
        return len(deaths[0].suspects), len(deaths[0].others)

    assert asyncio.run(run()) == (3, 5)


def test_every_death_leaves_fewer_to_suspect():
    together, rounds = 1000, 0
    while together > 1:
        together, rounds = suspects_at_once(together), rounds + 1
    assert rounds == 5
