"""Connections ask sentinels for the primary, before and after a failover."""

import asyncio
from pathlib import Path

import redis

from modelserver.store.server.connections import open_async, open_blocking
from tests.support.processes import eventually
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


async def read(url: str, key: str) -> object:
    async with open_async(url, max_connections=1) as client:
        return await client.get(key)
