"""Parts of answers in the store: told by one delivery only, in order, once."""

import asyncio
from collections.abc import Iterator

import orjson
import pytest
from redis.asyncio import Redis

from modelserver.store.keys import Keys
from modelserver.store.messages.streams import NOT_OURS, Addition, add_parts, read_parts
from tests.support.processes import ValkeyProcess

KEYS = Keys("test:")


@pytest.fixture
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    valkey = ValkeyProcess(tmp_path_factory.mktemp("valkey")).start()
    yield valkey.url
    valkey.stop()


def addition(tag: str, place: int, text: str) -> Addition:
    return Addition(tag, "task", "gateway", place, orjson.dumps([{"text": text}]))


def test_parts_are_told_by_the_delivery_that_was_first(url: str):
    async def told() -> tuple[list[int], list[list[dict[str, str]]]]:
        async with Redis.from_url(url) as client:
            for worker, tag in (("w1", "t1"), ("w2", "t2")):
                await client.hset(KEYS.unacked(worker), tag, "message")

            async def add(worker: str, *additions: Addition) -> int:
                [found] = await add_parts(client, KEYS, worker, additions)
                return found

            found = [
                await add("w1", addition("t1", 0, "a")),
                # Once more, where the reply was lost.
                await add("w1", addition("t1", 0, "a")),
                # The same request by another message.
                await add("w2", addition("t2", 0, "b")),
                await add("w2", addition("t2", 1, "c")),
                # The first one comes too late now.
                await add("w1", addition("t1", 1, "d")),
            ]
            await client.delete(KEYS.unacked("w2"))
            found.append(await add("w2", addition("t2", 2, "e")))
            return found, await read_parts(client, KEYS, "task")

    found, parts = asyncio.run(told())
    assert found == [0, 0, NOT_OURS, 0, NOT_OURS, NOT_OURS]
    assert parts == [[{"text": "a"}], [{"text": "c"}]]
