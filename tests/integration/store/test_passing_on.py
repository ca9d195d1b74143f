"""What a worker passes on is pulled by others first: the scripts, on a real server."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import orjson
import pytest
import redis
from redis.asyncio import Redis

from modelserver.store.batch import Batch, Delivery, GiveBack
from modelserver.store.keys import Keys
from modelserver.store.messages.delivery import Deliveries
from modelserver.store.scripts import atomic as scripts
from modelserver.store.scripts import queues as queue_scripts
from tests.support.processes import ValkeyProcess
from workers.delivery.held_message import HeldMessage

KEYS = Keys("t:")
QUEUE = "m"
MESSAGE = {"body": "", "headers": {}, "properties": {}}

Workers = tuple[Deliveries, Deliveries]


def put(url: str, submitter: str, *names: str, rows: int = 0) -> None:
    with redis.Redis.from_url(url) as client:
        for name in names:
            message = ({"rows": rows} if rows else {}) | MESSAGE | {"name": name}
            keys = (KEYS.queue(QUEUE)[0], KEYS.deadlines, KEYS.result(""), "short")
            keys += (KEYS.put(""),)
            told = (KEYS.bell(QUEUE), "", "", submitter, "", "")
            client.eval(scripts.PUT, 5, *keys, orjson.dumps(message), *told)


def depth(url: str) -> int:
    lists = KEYS.queue(QUEUE)
    with redis.Redis.from_url(url) as client:
        return int(client.eval(queue_scripts.DEPTH, len(lists), *lists))


def run(url: str, use: Callable[[Deliveries, Deliveries], Awaitable[None]]) -> None:
    async def connected() -> None:
        async with Redis.from_url(url) as client:
            await use(*(Deliveries(client, KEYS, f"w{n}") for n in (1, 2)))

    asyncio.run(connected())


def names(got: list[Delivery]) -> list[str]:
    return [orjson.loads(each.raw)["name"] for each in got]


async def leave(worker: Deliveries, got: list[Delivery], seconds: float = 60) -> None:
    """Give these back for others, as the courier does."""
    returns = []
    for each in reversed(got):
        held = HeldMessage(QUEUE, each)
        held.leave(worker.worker, time.time() + seconds)
        returns.append(GiveBack(each.tag, each.source, held.raw()))
    await worker.commit(Batch(returns=returns))


@pytest.mark.parametrize("rows", [0, 1, 12])
def test_it_stays_at_the_head_for_others(valkey: ValkeyProcess, rows: int):
    put(valkey.url, "a", "0", "1", "2", "3", rows=rows)

    async def use(one: Deliveries, two: Deliveries) -> None:
        await leave(one, await one.pull(QUEUE, 2 * max(1, rows)))
        assert names(await one.pull(QUEUE, max(1, rows))) == ["2"]
        assert depth(valkey.url) == 3 * max(1, rows)
        assert names(await two.pull(QUEUE, 99)) == ["0", "1", "3"]
        assert depth(valkey.url) == 0

    run(valkey.url, use)


def test_in_time_it_is_for_all_again(valkey: ValkeyProcess):
    put(valkey.url, "a", "0", "1")

    async def use(one: Deliveries, _: Deliveries) -> None:
        await leave(one, await one.pull(QUEUE, 1), seconds=-1.0)
        assert names(await one.pull(QUEUE, 9)) == ["0", "1"]

    run(valkey.url, use)


def test_those_who_passed_it_on_before_are_remembered(valkey: ValkeyProcess):
    put(valkey.url, "a", "0")

    async def use(one: Deliveries, two: Deliveries) -> None:
        await leave(one, await one.pull(QUEUE, 1))
        await leave(two, await two.pull(QUEUE, 1))
        assert await one.pull(QUEUE, 1) == await two.pull(QUEUE, 1) == []
        third = Deliveries(one.client, KEYS, "w3")
        assert names(await third.pull(QUEUE, 1)) == ["0"]

    run(valkey.url, use)


@pytest.mark.parametrize("submitters", [("a", "b"), ("a", "b", "c")])
def test_submitters_still_take_turns(valkey: ValkeyProcess, submitters: tuple[str]):
    for name in submitters:
        put(valkey.url, name, f"{name}0", f"{name}1")

    async def use(one: Deliveries, two: Deliveries) -> None:
        first = await one.pull(QUEUE, len(submitters))
        assert names(first) == [f"{name}0" for name in submitters]
        await leave(one, first)
        got = await one.pull(QUEUE, 99)
        assert sorted(names(got)) == [f"{name}1" for name in submitters]
        # Nothing but what is for others: the script ends, and nothing is lost.
        assert await one.pull(QUEUE, 99) == []
        assert depth(valkey.url) == len(submitters)
        got = await two.pull(QUEUE, 99)
        assert sorted(names(got)) == [f"{name}0" for name in submitters]
        assert depth(valkey.url) == 0

    run(valkey.url, use)


def test_what_others_do_not_take_keeps_nobody_from_the_rest(valkey: ValkeyProcess):
    put(valkey.url, "a", *map(str, range(100)))

    async def use(one: Deliveries, _: Deliveries) -> None:
        await leave(one, await one.pull(QUEUE, 80))
        # Beyond 64 it takes them all the same: no script may look at thousands.
        assert len(await one.pull(QUEUE, 99)) == 100 - 64

    run(valkey.url, use)


def test_who_writes_junk_there_hides_nothing(valkey: ValkeyProcess):
    main = KEYS.queue(QUEUE)[0]
    with redis.Redis.from_url(valkey.url) as client:
        for raw in (
            '{"left_by":"',
            '{"left_by":"x|w1|"}',
            '{"left_by":"9e9|w1"}',
            "[]",
        ):
            client.lpush(main, raw)

    async def use(one: Deliveries, _: Deliveries) -> None:
        assert len(await one.pull(QUEUE, 9)) == 4

    run(valkey.url, use)
