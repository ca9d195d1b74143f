"""Requests with an Idempotency-Key: their repeats, and clients that go away."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from modelserver.values import EngineState
from tests.engine.process import EngineProcess
from tests.integration.gateway.conftest import Served
from tests.support.processes import eventually
from tests.support.workers import PATIENCE, FleetSite

#: What a request takes on the engine, in seconds.
SECONDS = 2.0
PATH = "/v1/completions"


@pytest.fixture
def slow(fleet: FleetSite) -> EngineProcess:
    """The writer's only engine, which takes its time."""
    engine = fleet.engine("writer-1", "--latency", str(SECONDS))
    fleet.report("writer-0", EngineState.STARTING)
    return engine


@pytest.fixture
def others() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def asked(prompt: str, **change: Any) -> dict[str, Any]:
    return {"model": "writer", "prompt": prompt, "max_tokens": 3, **change}


def begun(engine: EngineProcess) -> int:
    """Requests that the engine has taken."""
    return int(engine.stats()["received"])


def leave(gateway: Served, body: dict[str, Any], key: str) -> socket.socket:
    """Ask with a key on a connection that can be closed."""
    content = json.dumps(body).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nIdempotency-Key: {key}\r\n"
    connection = socket.create_connection(("127.0.0.1", gateway.port), PATIENCE)
    connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode())
    connection.sendall(content)
    return connection


@pytest.mark.parametrize("stream", [False, True])
def test_a_repeat_that_goes_away_leaves_the_first_ones_request(
    gateway: Served, slow: EngineProcess, others: ThreadPoolExecutor, stream: bool
):
    body, key = asked(f"stays {stream}", stream=stream), f"stays {stream}"
    first = others.submit(gateway.ask, PATH, body, headers={"Idempotency-Key": key})
    eventually(lambda: begun(slow), PATIENCE)
    leave(gateway, body, key).close()
    status, told, _ = first.result(PATIENCE)
    assert status == 200, told
    assert b"error" not in told if stream else told["choices"]


def test_who_comes_again_finds_the_request_that_it_left(
    gateway: Served, slow: EngineProcess
):
    body, key = asked("comes again"), "comes again"
    connection = leave(gateway, body, key)
    eventually(lambda: begun(slow), PATIENCE)
    connection.close()
    status, told, _ = gateway.ask(PATH, body, headers={"Idempotency-Key": key})
    assert status == 200, told
    assert slow.stats()["executed"]["comes again"] == 1


def test_repeats_at_once_are_answered_by_one_request(
    gateway: Served, slow: EngineProcess, others: ThreadPoolExecutor
):
    key = {"Idempotency-Key": "at once"}
    sent = [
        others.submit(gateway.ask, PATH, asked("at once"), headers=key)
        for _ in range(4)
    ]
    assert [each.result(PATIENCE)[0] for each in sent] == [200] * 4
    assert slow.stats()["executed"]["at once"] == 1
