"""Connections ask sentinels for the primary, before and after a failover."""

import asyncio
from functools import partial
from inspect import isawaitable
from pathlib import Path

import pytest
import redis

from modelserver.store.server.connections import open_async, open_blocking
from tests.support.processes import eventually, free_port
from tests.support.sentinels import Group

#: How long a failover may take, in seconds.
PATIENCE = 60.0


def test_a_new_connection_leads_to_the_primary_of_now(tmp_path: Path):
    with Group(tmp_path) as group:
        client = open_blocking(group.url, socket_timeout=2)

        def takes(key: str) -> bool:
            try:
                return bool(client.set(key, "1"))
            except redis.RedisError:
                return False

        # A primary takes nothing before a replica is in step.
        eventually(lambda: takes("before"), PATIENCE)
        group.kill(group.primary)
        eventually(lambda: takes("after"), PATIENCE)
        assert asyncio.run(read(group.url, "after")) == b"1"
        client.close()


@pytest.mark.parametrize(
    "connect", [open_blocking, partial(open_async, max_connections=1)]
)
def test_where_none_names_a_primary_it_is_told_in_a_sentence(connect):
    sentinel = f"127.0.0.1:{free_port()}"
    client = connect(f"sentinel://{sentinel}/group/0?sentinel_password=secret")

    async def ask() -> None:
        if isawaitable(reply := client.get("key")):
            await reply

    with pytest.raises(redis.ConnectionError) as caught:
        asyncio.run(ask())
    assert str(caught.value) == (
        f'no sentinel of {sentinel} names a primary of "group"; see that one runs, '
        "takes sentinel_password of the URL, and watches this group"
    )


async def read(url: str, key: str) -> object:
    async with open_async(url, max_connections=1) as client:
        return await client.get(key)
