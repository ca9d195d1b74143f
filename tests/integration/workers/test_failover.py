"""A server that was demoted, or that has forgotten: clients and workers go on."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import redis
from redis.exceptions import ConnectionError as LostError

from modelserver.errors import StoreUnreachableError
from modelserver.store.batch import GiveBack, Stored, StoreResult
from modelserver.store.keys import Keys
from modelserver.store.messages.delivery import Deliveries
from modelserver.store.server.connections import (
    AsyncConnection,
    AsyncSSLConnection,
    StoreConnection,
    open_async,
)
from tests.engine.openai_api import answer_text
from tests.support.processes import ValkeyProcess, eventually, free_port
from tests.support.workers import PATIENCE, FleetSite, answers, open_fleet
from workers.delivery.courier import Courier

KEYS = Keys("t:")
UNACKED = KEYS.unacked("w1")
T = TypeVar("T")


@pytest.fixture
def client(valkey: ValkeyProcess) -> Iterator["redis.Redis"]:
    """A client that knows nothing of failovers."""
    with redis.Redis.from_url(valkey.url) as client:
        yield client


@pytest.fixture
def fleet(valkey: ValkeyProcess, tmp_path: Path) -> Iterator[FleetSite]:
    with open_fleet(tmp_path, valkey.url) as fleet:
        yield fleet


def demote(client: "redis.Redis") -> None:
    """Make the server a replica of nobody: it keeps its data and takes no writes."""
    client.execute_command("REPLICAOF", "127.0.0.1", free_port())


def promote(client: "redis.Redis") -> None:
    """Make it a primary again."""
    client.execute_command("REPLICAOF", "NO", "ONE")


def refused(client: "redis.Redis") -> bool:
    """Whether the server has refused something because it is demoted."""
    return "errorstat_READONLY" in client.info("errorstats")


def as_worker(url: str, use: Callable[[Deliveries], Awaitable[T]]) -> T:
    """What one worker's side of the store gives."""

    async def once() -> T:
        client = open_async(url, 4)
        try:
            return await use(Deliveries(client, KEYS, "w1"))
        finally:
            await client.aclose()

    return asyncio.run(once())


def test_a_connection_to_a_demoted_server_is_given_up(
    valkey: ValkeyProcess, client: "redis.Redis"
):
    pool = redis.ConnectionPool.from_url(valkey.url, connection_class=StoreConnection)
    with redis.Redis(connection_pool=pool) as ours:
        before = ours.client_id()
        demote(client)
        with pytest.raises(LostError, match="takes no writes"):
            ours.set("key", "value")
        with pytest.raises(LostError), ours.pipeline() as pipe:
            pipe.set("key", "value").execute()
        with pytest.raises(LostError):
            ours.eval("return redis.call('SET', 'key', 'value')", 0)
        promote(client)
        assert ours.client_id() != before
        assert ours.set("key", "value")


def test_too_few_replicas_are_a_lost_connection_too(
    valkey: ValkeyProcess, client: "redis.Redis"
):
    client.config_set("min-replicas-to-write", 1)
    pool = redis.ConnectionPool.from_url(valkey.url, connection_class=StoreConnection)
    with redis.Redis(connection_pool=pool) as ours, pytest.raises(LostError):
        ours.set("key", "value")


def test_other_errors_leave_the_connection(valkey: ValkeyProcess):
    pool = redis.ConnectionPool.from_url(valkey.url, connection_class=StoreConnection)
    with redis.Redis(connection_pool=pool) as ours:
        before = ours.client_id()
        ours.set("key", "value")
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            ours.lpush("key", "value")
        assert ours.client_id() == before


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_workers_connections_leave_too_and_try_nothing_again(scheme: str):
    client = open_async(f"{scheme}://127.0.0.1:1/0", 4)
    connection = client.connection_pool.make_connection()
    assert isinstance(connection, AsyncConnection)
    assert isinstance(connection, AsyncSSLConnection) == (scheme == "rediss")
    assert connection.retry.get_retries() == 0


def test_no_tag_comes_twice_though_the_counter_went_back(
    valkey: ValkeyProcess, client: "redis.Redis"
):
    client.lpush(KEYS.queue("m")[0], "first", "second")

    async def pull_twice(worker: Deliveries) -> set[str]:
        first = await worker.pull("m", 1)
        # As on a replica that had not heard of the first pull.
        client.delete(KEYS.tags)
        second = await worker.pull("m", 1)
        return {delivery.tag for delivery in (*first, *second)}

    assert len(as_worker(valkey.url, pull_twice)) == 2


def test_a_demoted_server_is_not_asked_what_a_worker_holds(
    valkey: ValkeyProcess, client: "redis.Redis"
):
    demote(client)
    with pytest.raises(LostError):
        as_worker(valkey.url, lambda worker: worker.held())


def test_what_is_to_be_given_back_names_its_list(
    valkey: ValkeyProcess, client: "redis.Redis"
):
    client.hset(KEYS.unacked("w1"), "1-1", "t:writer\n{}")

    async def ask(worker: Deliveries) -> list[GiveBack]:
        assert await worker.held() == {"1-1"}
        return await worker.returns(["1-1", "gone"])

    assert as_worker(valkey.url, ask) == [GiveBack("1-1", "t:writer")]


def test_an_answer_that_was_lost_before_its_acknowledgement_is_stored_again(
    valkey: ValkeyProcess, client: "redis.Redis"
):
    client.lpush(KEYS.queue("m")[0], "message")

    async def answer(worker: Deliveries) -> None:
        courier = Courier(worker)
        (delivery,) = await worker.pull("m", 1)
        courier.took("m", delivery)
        carrying = asyncio.create_task(courier.run())
        result = StoreResult(delivery.tag, "answer", b"42", 60, final=True)
        assert await courier.store(result) is Stored.STORED
        # As on a replica that has not heard of it.
        client.delete("answer")
        demote(client)
        courier.ack(delivery.tag)
        flushing = asyncio.create_task(courier.flush())
        await asyncio.sleep(0)
        await asyncio.to_thread(eventually, lambda: refused(client))
        promote(client)
        await flushing
        await asyncio.to_thread(eventually, lambda: not client.exists(UNACKED))
        carrying.cancel()

    as_worker(valkey.url, answer)
    assert client.get("answer") == b"42"


def test_requests_wait_out_a_demoted_server(fleet: FleetSite, client: "redis.Redis"):
    engine = fleet.engine("writer-0", "--hang", limit=4)
    fleet.worker()
    texts = [f"request {place}" for place in range(12)]
    results = fleet.send(texts)
    eventually(lambda: fleet.in_flight("writer-0") == 4, PATIENCE)
    demote(client)
    with pytest.raises(StoreUnreachableError, match="takes no writes"):
        fleet.complete.delay("refused")
    engine.fault()
    eventually(lambda: fleet.in_flight("writer-0") == 0, PATIENCE)
    promote(client)
    assert answers(results) == [answer_text(text) for text in texts]
    assert fleet.complete.delay("more").get(timeout=PATIENCE) == answer_text("more")


def test_what_the_server_alone_knows_goes_back_without_any_error(fleet: FleetSite):
    """As after a failover that lost an answer together with its acknowledgement."""
    fleet.engine("writer-0")
    result = fleet.send(["forgotten"])[0]
    store, writer = fleet.store.client, fleet.store.keys.queue("writer")[0]
    message = store.rpop(writer)
    worker = fleet.worker()
    unacked = fleet.store.keys.unacked(worker.node)
    store.hset(unacked, "1-1", f"{writer}\n{message}")
    assert result.get(timeout=PATIENCE) == answer_text("forgotten")
    eventually(lambda: fleet.held() == 0, PATIENCE)
