"""Where Redis is gone, a client is told so soon."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from celery import chain, chord, group

from modelserver.errors import StoreUnreachableError
from tests.support.processes import ValkeyProcess
from tests.support.workers import FleetSite, open_fleet

#: A call gives up after a second or so; others may use the machine.
SOON_SECONDS = 5.0

WAYS: dict[str, Callable[[FleetSite], object]] = {
    "delay": lambda site: site.complete.delay("x"),
    "chain": lambda site: chain(site.complete.s("x"), site.complete.s())(),
    "group": lambda site: group(site.complete.s("x") for _ in range(5))(),
    "chord": lambda site: chord([site.complete.s("x")] * 3, site.embed.s())(),
    "aio": lambda site: asyncio.run(aio(site)),
}


async def aio(site: FleetSite) -> object:
    return await asyncio.gather(*(site.complete.aio(f"{n}") for n in range(50)))


@contextmanager
def soon() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < SOON_SECONDS


@pytest.fixture(scope="module")
def orphan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetSite]:
    """A client that has sent, holds results and waits for one; its server is gone."""
    folder: Path = tmp_path_factory.mktemp("fleet")
    valkey = ValkeyProcess(folder).start()
    with open_fleet(folder, valkey.url) as site:
        held = [site.complete.delay("held") for _ in range(100)]
        held[0].then(print)
        valkey.stop()
        yield site


@pytest.mark.parametrize("way", WAYS)
def test_a_request_is_refused_soon(orphan: FleetSite, way: str):
    with soon(), pytest.raises(StoreUnreachableError, match="was not accepted"):
        WAYS[way](orphan)
