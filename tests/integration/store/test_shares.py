"""Workers that agree on an engine's limit in any order, on a real server."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from modelserver.store.keys import Keys
from modelserver.store.messages.delivery import Deliveries
from modelserver.store.messages.shares import (
    Shared,
    ShareNeed,
    Sharer,
    give_up_shares,
    share,
)
from tests.support.processes import ValkeyProcess
from workers.engines.shares import deal

LIMIT = 7
WORKERS = 4
#: (what happens, to which worker, how many others it believes in, how much it begins)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["agree", "agree", "agree", "begin", "end", "die", "leave"]),
        st.integers(0, WORKERS - 1),
        st.integers(1, WORKERS),
        st.integers(0, LIMIT),
    ),
    max_size=40,
)


@dataclass
class One:
    """A worker as the store sees it."""

    deliveries: Deliveries
    share: int = 0
    inflight: int = 0
    lives: bool = False

    async def live(self) -> None:
        await self.deliveries.renew(b"{}", 60.0)
        self.lives = True

    async def agree(self, wanted: int, **dead: list[str]) -> Shared | None:
        self.share = min(self.share, wanted)
        own = Sharer(self.deliveries.worker, True, "", True)
        uses = {"e": ShareNeed(self.inflight, wanted, LIMIT)}
        found = await share(self.deliveries, "h", own, uses, **dead)
        if found is not None:
            self.share = found.shares["e"]
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
        await two.live()
        await one.agree(LIMIT)
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
        await two.live()
        await one.agree(LIMIT)
        await two.agree(LIMIT, ended=["w0"])
        assert two.share == 0
        found = await two.agree(LIMIT, gone=["w0"])
        assert found
        assert found.others == ()
        assert two.share == LIMIT
        assert await one.agree(LIMIT) is None

    run(valkey, story)
