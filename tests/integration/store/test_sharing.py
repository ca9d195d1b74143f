"""Submitters share a queue fairly: the scripts, on a real server."""

import asyncio
from collections.abc import Iterator

import pytest
import redis
from redis.asyncio import Redis

from modelserver.store.batch import Batch, GiveBack, Park
from modelserver.store.keys import Keys
from modelserver.store.messages.delivery import Deliveries
from modelserver.store.scripts import atomic as scripts
from modelserver.store.scripts import queues as queue_scripts
from tests.support.processes import ValkeyProcess

KEYS = Keys("t:")
QUEUE = "m"


class Shared:
    """One queue, its submitters and one worker."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = redis.Redis.from_url(url, decode_responses=True)

    def put(
        self, submitter: str, number: int, priority: int = 0, rows: int = 0
    ) -> None:
        """Publish messages named after their submitter, or bundles of so many rows."""
        main = KEYS.queue(QUEUE)[priority]
        for place in range(number):
            body = f"{submitter}{place}"
            if rows:
                body = f'{{"rows":{rows},"name":"{body}"}}'
            keys = (main, KEYS.deadlines, KEYS.result(""), KEYS.memory_short)
            arguments = (body, KEYS.bell(QUEUE), "", "", submitter, "", "")
            self.client.eval(scripts.PUT, 5, *keys, KEYS.put(""), *arguments)

    def pull(self, room: int, give_back: bool = False) -> list[str]:
        """What a worker with so much room gets, in order."""

        async def once() -> list[str]:
            client = Redis.from_url(self.url)
            worker = Deliveries(client, KEYS, "w1")
            got = await worker.pull(QUEUE, room)
            if give_back:
                back = [GiveBack(each.tag, each.source) for each in got]
                await worker.commit(Batch(returns=back))
            await client.aclose()
            return [each.raw.decode() for each in got]

        return asyncio.run(once())

    def depth(self) -> int:
        """Messages that wait, in all lists."""
        lists = KEYS.queue(QUEUE)
        return int(self.client.eval(queue_scripts.DEPTH, len(lists), *lists))


@pytest.fixture
def shared(valkey: ValkeyProcess) -> Iterator[Shared]:
    shared = Shared(valkey.url)
    yield shared
    shared.client.close()


def test_one_submitter_is_served_in_order(shared: Shared):
    shared.put("a", 5)
    assert shared.pull(3) == ["a0", "a1", "a2"]
    assert shared.pull(9) == ["a3", "a4"]


def test_a_late_submitter_does_not_wait_for_the_first(shared: Shared):
    shared.put("a", 1000)
    shared.put("b", 2)
    assert shared.pull(4) == ["a0", "a1", "b0", "b1"]


def test_room_for_one_goes_around(shared: Shared):
    for name in ("a", "b", "c"):
        shared.put(name, 2)
    got = [shared.pull(1)[0] for _ in range(6)]
    assert got == ["a0", "b0", "c0", "a1", "b1", "c1"]


def test_room_that_one_does_not_need_goes_to_the_others(shared: Shared):
    shared.put("a", 10)
    shared.put("b", 1)
    assert sorted(shared.pull(8)) == sorted([*(f"a{i}" for i in range(7)), "b0"])


def test_the_urgent_goes_first_whoever_sent_it(shared: Shared):
    shared.put("a", 5, priority=1)
    shared.put("b", 5, priority=1)
    shared.put("c", 2, priority=0)
    assert shared.pull(3)[:2] == ["c0", "c1"]


def test_depth_counts_every_submitter(shared: Shared):
    shared.put("a", 3)
    shared.put("b", 4)
    shared.put("b", 5, priority=2)
    assert shared.depth() == 12


def test_what_is_given_back_comes_again(shared: Shared):
    shared.put("a", 2)
    shared.put("b", 2)
    taken = shared.pull(9, give_back=True)
    assert sorted(taken) == ["a0", "a1", "b0", "b1"]
    assert sorted(shared.pull(9)) == sorted(taken)
    assert shared.depth() == 0


def test_an_emptied_queue_leaves_no_lists(shared: Shared):
    shared.put("a", 2)
    shared.put("b", 2)
    shared.pull(9)
    left = [key for key in shared.client.keys("t:m*") if not key.endswith("owner")]
    assert left == []


def test_a_purge_takes_every_submitters_messages(shared: Shared):
    shared.put("a", 2)
    shared.put("b", 3)
    lists = KEYS.queue(QUEUE)
    assert shared.client.eval(queue_scripts.PURGE, len(lists), *lists, 100) == [5, 0]
    assert shared.pull(9) == []
    assert shared.depth() == 0


def test_a_purge_of_many_submitters_is_done_in_parts(shared: Shared):
    for number in range(10):
        shared.put(f"s{number}", 1)
    lists = KEYS.queue(QUEUE)
    assert shared.client.eval(queue_scripts.PURGE, len(lists), *lists, 4)[1] == 1
    assert shared.depth() == 6
    assert shared.client.eval(queue_scripts.PURGE, len(lists), *lists, 40) == [6, 0]
    assert not [key for key in shared.client.keys("t:m*") if not key.endswith("owner")]


def test_a_plain_producer_gets_its_turn_while_submitters_are_busy(shared: Shared):
    shared.put("a", 3)
    shared.put("b", 50)
    shared.pull(6)  # The main list is empty and has left the ring.
    main = KEYS.queue(QUEUE)[0]
    shared.client.lpush(main, "p0", "p1", "p2")
    assert shared.pull(2).count("p0") == 1
    assert shared.depth() == 48
    assert shared.pull(4).count("p1") == 1
    shared.client.lpush(main, "p3")
    assert "p3" in shared.pull(8)


def test_a_plain_producer_has_no_more_than_its_turn(shared: Shared):
    shared.put("a", 1)
    shared.put("b", 4)
    assert shared.pull(1) == ["a0"]
    main, got = KEYS.queue(QUEUE)[0], []
    for number in range(4):
        shared.client.lpush(main, f"p{number}")
        got += shared.pull(1)
    assert got == ["b0", "p0", "b1", "p1"]


def test_depth_looks_at_no_list_of_a_submitter(shared: Shared):
    """However many there are: each look costs the same."""
    for number in range(50):
        shared.put(f"s{number}", 2)
    shared.client.config_resetstat()
    assert shared.depth() == 100
    assert shared.client.info("commandstats")["cmdstat_llen"]["calls"] == 4
    assert len(shared.pull(33, give_back=True)) == 33
    assert shared.depth() == 100
    shared.pull(70)
    assert shared.depth() == 30


def due_at_once(url: str, shared: Shared, number: int) -> list[str]:
    """The order in which messages are woken that were set aside for one time."""

    async def once() -> list[str]:
        client = Redis.from_url(url)
        worker = Deliveries(client, KEYS, "w1")
        while got := await worker.pull(QUEUE, 128):
            await worker.commit(Batch(parked=[Park(each.tag, 1.0) for each in got]))
        assert await worker.wake() == number
        woken = [each.raw.decode() for each in await worker.pull(QUEUE, number)]
        await client.aclose()
        return woken

    return asyncio.run(once())


def test_what_is_due_together_comes_in_the_order_of_submission(shared: Shared):
    shared.put("a", 2000)
    woken = due_at_once(shared.url, shared, 2000)
    assert woken == [f"a{number}" for number in range(2000)]
    assert shared.depth() == 0


# Bundles.


def of(got: list[str], submitter: str) -> int:
    """How many messages of a submitter were pulled."""
    return sum(submitter in each for each in got)


def test_room_is_counted_in_rows(shared: Shared):
    shared.put("a", 10, rows=8)
    assert shared.depth() == 80
    assert len(shared.pull(16)) == 2
    assert len(shared.pull(1)) == 1
    assert shared.depth() == 56
    assert len(shared.pull(50, give_back=True)) == 7
    assert shared.depth() == 56
    assert len(shared.pull(100)) == 7
    assert shared.depth() == 0
    assert shared.client.keys("*rows") == []


def test_shares_are_counted_in_rows(shared: Shared):
    shared.put("run", 20, rows=8)
    shared.put("b", 80)
    got: list[str] = []
    for _ in range(40):
        got += shared.pull(2)
        rows, singles = 8 * of(got, "run"), of(got, "b")
        if singles < 80:
            assert abs(rows - singles) <= 8 + 2
    assert shared.depth() == 160 + 80 - rows - singles
    assert len(shared.pull(500)) == 100 - len(got)
    assert shared.depth() == 0
    assert shared.client.keys("t:m*") == ["t:m\x06\x16owner"]


def test_two_runs_take_turns_where_there_is_room_for_one_row(shared: Shared):
    shared.put("x", 10, rows=8)
    shared.put("y", 10, rows=8)
    got = [each for _ in range(8) for each in shared.pull(1)]
    assert (of(got, "x"), of(got, "y")) == (4, 4)


def test_purging_counts_rows(shared: Shared):
    shared.put("a", 4, rows=8)
    shared.put("b", 3)
    shared.put("c", 2, rows=5)
    assert shared.depth() == 45
    lists = KEYS.queue(QUEUE)
    assert shared.client.eval(queue_scripts.PURGE, len(lists), *lists, 100) == [45, 0]
    assert shared.depth() == 0
