"""Workers that agree on an engine's limit in any order, on a real server."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import orjson
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from modelserver.store.keys import Keys
from modelserver.store.messages.delivery import Deliveries
from modelserver.store.messages.shares import (
    COMING_BACK_SECONDS,
    Shared,
    ShareNeed,
    Sharer,
    give_up_shares,
    share,
)
from tests.support.processes import ValkeyProcess, eventually
from workers.engines.shares import deal

LIMIT = 7
WORKERS = 4
#: (what happens, to which worker, how many others it believes in, how much it begins)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["agree", "agree", "agree", "begin", "end", "die", "leave", "lose"]
        ),
        st.integers(0, WORKERS - 1),
        st.integers(1, WORKERS),
        st.integers(0, LIMIT),
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """A server that has just started."""
    server = ValkeyProcess(tmp_path_factory.mktemp("valkey")).start()
    yield server
    server.stop()


@pytest.fixture
def valkey(fresh: ValkeyProcess) -> ValkeyProcess:
    """A server that has been there for a while."""
    eventually(lambda: up_seconds(fresh) >= COMING_BACK_SECONDS)
    return fresh


def up_seconds(valkey: ValkeyProcess) -> int:
    with redis.Redis.from_url(valkey.url) as client:
        return int(client.info("server")["uptime_in_seconds"])


@dataclass
class One:
    """A worker as the store sees it."""

    deliveries: Deliveries
    share: int = 0
    inflight: int = 0
    lives: bool = False
    is_sure: bool = False

    async def live(self, host: str = "h") -> None:
        report = {"host": host, "process": f"process of {self.deliveries.worker}"}
        await self.deliveries.renew(orjson.dumps(report), 60.0)
        self.lives = True

    async def agree(self, wanted: int, **dead: list[str]) -> Shared | None:
        self.share = min(self.share, wanted)
        own = Sharer(self.deliveries.worker, True, "", True)
        uses = {"e": ShareNeed(self.inflight, wanted, LIMIT, self.share)}
        found = await share(
            self.deliveries, "h", own, uses, **dead, is_sure=self.is_sure
        )
        if found is not None:
            self.share, self.is_sure = found.shares["e"], found.is_complete
        return found


def run(valkey: ValkeyProcess, story: Callable[[list[One]], Awaitable[None]]) -> None:
    async def tell() -> None:
        client = Redis.from_url(valkey.url)
        await client.flushall()
        await story(
            [One(Deliveries(client, Keys("t:"), f"w{n}")) for n in range(WORKERS)]
        )
        await client.aclose()

    asyncio.run(tell())


def test_nobody_gets_more_from_a_server_that_may_have_lost_what_others_said(
    fresh: ValkeyProcess,
):
    async def story(workers: list[One]) -> None:
        one, two = workers[:2]
        one.share = 2
        await one.live()
        await two.live()
        while up_seconds(fresh) < COMING_BACK_SECONDS:
            for each in (one, two):
                await each.agree(4)
            if up_seconds(fresh) < COMING_BACK_SECONDS:
                assert (one.share, two.share) == (2, 0)
            await asyncio.sleep(0.1)
        await one.agree(4)
        await two.agree(3)
        assert (one.share, two.share) == (4, 3)

    run(fresh, story)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(STEPS)
def test_together_they_never_exceed_the_limit(
    valkey: ValkeyProcess, steps: list[tuple[str, int, int, int]]
):
    async def story(workers: list[One]) -> None:
        for what, which, believed, number in steps:
            one = workers[which]
            if what == "agree":
                await one.live()
                dealt = deal({"e": LIMIT}, {"e": "m"}, max(believed, which + 1))
                dead = [w.deliveries.worker for w in workers if not w.lives]
                await one.agree(dealt[which].shares["e"], ended=dead)
            elif what == "begin" and one.lives:
                one.inflight = max(one.inflight, min(one.share, number))
            elif what == "end":
                one.inflight = min(one.inflight, number)
            elif what in ("die", "leave") and one.lives:
                if what == "leave":
                    await give_up_shares(one.deliveries, "h")
                await one.deliveries.leave()
                one.share, one.inflight, one.lives = 0, 0, False
            elif what == "lose":
                client, keys = one.deliveries.client, one.deliveries.keys
                await client.delete(keys.shares("h"))
            taken = sum(max(w.share, w.inflight) for w in workers)
            assert taken <= LIMIT
        for each in workers:
            await each.live()
        for _ in range(2):
            for rank, each in enumerate(workers):
                each.inflight = 0
                fair = deal({"e": LIMIT}, {"e": "m"}, WORKERS)[rank].shares["e"]
                await each.agree(fair)
        assert sorted(each.share for each in workers) == [1, 2, 2, 2]

    run(valkey, story)


def test_who_grows_waits_until_what_the_other_has_begun_has_ended(
    valkey: ValkeyProcess,
):
    async def story(workers: list[One]) -> None:
        one, two = workers[:2]
        await one.live()
        await one.agree(LIMIT)
        await two.live()
        one.inflight = LIMIT
        await two.agree(3)
        assert two.share == 0
        await one.agree(4)
        await two.agree(3)
        assert (one.share, two.share) == (4, 0)
        one.inflight = 5
        await one.agree(4)
        await two.agree(3)
        assert (one.share, two.share) == (4, 2)

    run(valkey, story)


def test_a_worker_that_is_gone_leaves_its_lease_and_its_share_at_once(
    valkey: ValkeyProcess,
):
    async def story(workers: list[One]) -> None:
        one, two = workers[:2]
        await one.live()
        await one.agree(LIMIT)
        await two.live()
        await two.agree(LIMIT, ended=["w0"])
        assert two.share == 0
        found = await two.agree(LIMIT, gone=["w0"])
        assert found
        assert found.others == ()
        assert two.share == LIMIT
        assert await one.agree(LIMIT) is None

    run(valkey, story)


def test_who_joins_waits_for_all_of_its_host_of_which_it_has_not_heard(
    valkey: ValkeyProcess,
):
    async def story(workers: list[One]) -> None:
        one, two, elsewhere = workers[:3]
        await one.live()
        await two.live()
        await elsewhere.live("another host")
        found = await two.agree(LIMIT)
        assert found
        assert [(each.name, each.process) for each in found.others] == [
            ("w0", "process of w0")
        ]
        assert two.share == 0
        await two.agree(LIMIT, ended=["w0"])
        assert two.share == 0
        await two.agree(LIMIT, gone=["w0"])
        assert two.share == LIMIT

    run(valkey, story)
