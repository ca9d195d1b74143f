"""Requests of the gateway without Celery's layers: what goes out, and what comes."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from celery import Celery

from modelserver import settings as settings_module
from modelserver.api import client
from modelserver.errors import RequestError
from modelserver.gateway.bodies import TaskCall
from modelserver.gateway.direct import DirectWay
from modelserver.gateway.doorkeeper import Doorkeeper
from modelserver.gateway.headers import Caller
from modelserver.messaging.wire import CHAT, COMPLETE
from modelserver.store import Keys
from modelserver.store.batch import BY_NOTICE, DEADLINE, SUBMITTER
from modelserver.store.server.connections import open_async
from tests.support.processes import ValkeyProcess, eventually

#: How long anything here may take, in seconds.
PATIENCE = 20.0
#: Whose bodies are looked through on the loop.
SHORT = Caller(is_short=True)
KEYS = Keys("t:")
FLEET = """
[[models]]
name = "small"
engine = "external"

[[models]]
name = "large"
engine = "external"

[redis]
url = "{url}"
prefix = "t:"
"""
CALLS = [
    (COMPLETE, "hi", {"model": "small", "raw": True, "max_tokens": 3}, {}, 0),
    (COMPLETE, 'a\\u4e2d "中" \x01\n', {"model": "small", "raw": True}, {}, 9),
    (
        CHAT,
        [{"role": "user", "content": "hi"}],
        {"model": "large", "deadline": 7.5, "extra_body": {"top_k": 5}},
        {SUBMITTER: "ana", "hedge": True},
        4,
    ),
]


@pytest.fixture
def app(valkey: ValkeyProcess, tmp_path: Path) -> Iterator[Celery]:
    path = tmp_path / "fleet.toml"
    path.write_text(FLEET.format(url=valkey.url))
    app = client(settings_module.load({"MODELSERVER_FLEET": str(path)}))
    yield app
    app.close()


@pytest.fixture
def server(valkey: ValkeyProcess) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(valkey.url) as server:
        yield server


class Site:
    """A direct way that runs, on a loop of its own."""

    def __init__(self, app: Celery, url: str) -> None:
        self.client = open_async(url, 4)
        self.way = DirectWay(app, self.client, KEYS, ThreadPoolExecutor(1))

    async def __aenter__(self) -> DirectWay:
        await self.way.start()
        return self.way

    async def __aexit__(self, *_: object) -> None:
        await self.way.stop()
        await self.client.aclose()


def options(task: str, headers: dict[str, Any], priority: int = 0) -> dict[str, Any]:
    return {"task_id": task, "headers": dict(headers), "priority": priority}


def stored(server: redis.Redis, task: str, answer: str) -> None:
    """What a worker stores and tells."""
    meta = {"status": "SUCCESS", "result": answer, "task_id": task, "children": []}
    server.set(KEYS.result(task), orjson.dumps(meta))
    server.publish(KEYS.result(task), orjson.dumps(meta))


def taken(server: redis.Redis, model: str) -> dict[str, Any]:
    """The only message of a model's queue, without what differs each time."""
    (key,) = [key for key in KEYS.queue(model) if server.exists(key)]
    message: dict[str, Any] = orjson.loads(server.lpop(key))
    assert message["headers"].pop("sent_at")
    message["headers"].pop("origin", None)
    message["headers"].pop(BY_NOTICE, None)
    if message["headers"].pop(DEADLINE, None):
        ((_, due),) = server.zrange(KEYS.deadlines, 0, -1, withscores=True)
        assert due > 0
    message["body"] = orjson.loads(message["body"])
    return message | {"list": key}


@pytest.mark.parametrize(("task", "payload", "arguments", "headers", "priority"), CALLS)
def test_a_message_is_the_one_that_celery_sends(
    app: Celery,
    valkey: ValkeyProcess,
    server: redis.Redis,
    task: str,
    payload: Any,
    arguments: dict[str, Any],
    headers: dict[str, Any],
    priority: int,
):
    of_celery = next(each for each in app.modelserver_tasks if each.name == task)
    given = options("r1", headers, priority)
    of_celery.apply_async((payload,), dict(arguments), **given)
    expected = taken(server, arguments["model"])

    async def send() -> None:
        async with Site(app, valkey.url) as way:
            call = TaskCall(task, payload, arguments)
            given = options("r1", headers, priority)
            async with way.sent(call, dict(arguments), given, SHORT):
                assert taken(server, arguments["model"]) == expected

    asyncio.run(send())


def test_an_answer_comes_to_each_that_waits_for_it(
    app: Celery, valkey: ValkeyProcess, server: redis.Redis
):
    call = TaskCall(COMPLETE, "hi", {})

    async def ask(way: DirectWay) -> Any:
        given = options("r1", {})
        async with way.sent(call, {"model": "small"}, given, Caller()) as answer:
            return await asyncio.wait_for(answer, PATIENCE)

    async def look() -> None:
        async with Site(app, valkey.url) as way:
            both = [asyncio.create_task(ask(way)) for _ in range(2)]
            queue = KEYS.queue("small")[0]
            await asyncio.to_thread(eventually, lambda: server.llen(queue) == 2)
            stored(server, "r1", "hello")
            assert await asyncio.gather(*both) == ["hello", "hello"]
            # One that comes later finds it.
            assert await ask(way) == "hello"

    asyncio.run(look())


def test_an_answer_that_came_while_the_connection_was_lost_is_found(
    app: Celery, valkey: ValkeyProcess, server: redis.Redis
):
    async def look() -> None:
        async with Site(app, valkey.url) as way:
            call, given = TaskCall(COMPLETE, "hi", {}), options("r1", {})
            async with way.sent(call, {"model": "small"}, given, SHORT) as answer:
                server.client_kill_filter(_type="pubsub")
                meta = {"status": "SUCCESS", "result": "hello", "task_id": "r1"}
                server.set(KEYS.result("r1"), orjson.dumps(meta))
                assert await asyncio.wait_for(answer, PATIENCE) == "hello"

    asyncio.run(look())


def test_an_answer_for_which_the_server_closes_the_connection_is_read(
    app: Celery, valkey: ValkeyProcess, server: redis.Redis
):
    server.config_set("client-output-buffer-limit", "pubsub 1000000 0 0")
    large = "hello" * 8_000_000

    async def look() -> None:
        async with Site(app, valkey.url) as way:
            call, given = TaskCall(COMPLETE, "hi", {}), options("r1", {})
            async with way.sent(call, {"model": "small"}, given, SHORT) as answer:
                stored(server, "r1", large)
                assert await asyncio.wait_for(answer, PATIENCE) == large
            # One that was there before.
            async with way.sent(call, {"model": "small"}, given, SHORT) as answer:
                assert await asyncio.wait_for(answer, PATIENCE) == large

    asyncio.run(look())


def test_a_request_that_is_at_fault_is_not_sent(
    app: Celery, valkey: ValkeyProcess, server: redis.Redis
):
    async def look() -> None:
        async with Site(app, valkey.url) as way:
            call, given = TaskCall(COMPLETE, "", {}), options("r1", {})
            with pytest.raises(RequestError, match="prompt is empty"):
                async with way.sent(call, {"model": "small"}, given, SHORT):
                    pass
            assert not server.exists(*KEYS.queue("small"))

    asyncio.run(look())


def test_all_who_come_at_once_go_by_one_look_for_keys(
    valkey: ValkeyProcess, server: redis.Redis
):
    async def look() -> None:
        client = open_async(valkey.url, 50)
        doorkeeper = Doorkeeper(client, KEYS, True, counted_seconds=60)
        await asyncio.gather(*(doorkeeper.admit("") for _ in range(50)))
        await client.aclose()

    asyncio.run(look())
    assert server.info("commandstats")["cmdstat_hlen"]["calls"] == 1
