"""Requests with an Idempotency-Key: their repeats, and clients that go away."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from tests.engine.process import EngineProcess
from tests.integration.gateway.conftest import Served
from tests.support.processes import eventually
from tests.support.workers import PATIENCE, FleetSite

PATH = "/v1/completions"


@dataclass(frozen=True)
class HeldEngine:
    """The writer's only engine, which answers nothing until it is let go."""

    engine: EngineProcess
    #: Requests that it had before.
    before: int

    def begun(self) -> bool:
        """Whether it has taken another request."""
        return int(self.engine.stats()["received"]) > self.before

    def let_go_after_another_left(self, gateway: Served) -> None:
        """Answer, once a request without a key was called off for its client's sake."""
        taken, called_off = (self.engine.stats()[n] for n in ("received", "aborted"))
        connection = leave(gateway, asked("another"), "")
        eventually(lambda: self.engine.stats()["received"] > taken, PATIENCE)
        connection.close()
        eventually(lambda: self.engine.stats()["aborted"] > called_off, PATIENCE)
        self.let_go()

    def let_go(self) -> None:
        self.engine.fault()

    def executed(self, prompt: str) -> int:
        return int(self.engine.stats()["executed"][prompt])


@pytest.fixture
def held(fleet: FleetSite) -> HeldEngine:
    engine = fleet.engines["writer-0"]
    engine.fault(hang=True)
    return HeldEngine(engine, int(engine.stats()["received"]))


@pytest.fixture
def others() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def asked(prompt: str, **change: Any) -> dict[str, Any]:
    return {"model": "writer", "prompt": prompt, "max_tokens": 3, **change}


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
    gateway: Served, held: HeldEngine, others: ThreadPoolExecutor, stream: bool
):
    body, key = asked(f"stays {stream}", stream=stream), f"stays {stream}"
    first = others.submit(gateway.ask, PATH, body, headers={"Idempotency-Key": key})
    eventually(held.begun, PATIENCE)
    leave(gateway, body, key).close()
    held.let_go_after_another_left(gateway)
    status, told, _ = first.result(PATIENCE)
    assert status == 200, told
    assert b"error" not in told if stream else told["choices"]


def test_who_comes_again_finds_the_request_that_it_left(
    gateway: Served, held: HeldEngine
):
    body, key = asked("comes again"), "comes again"
    connection = leave(gateway, body, key)
    eventually(held.begun, PATIENCE)
    connection.close()
    held.let_go_after_another_left(gateway)
    status, told, _ = gateway.ask(PATH, body, headers={"Idempotency-Key": key})
    assert status == 200, told
    assert held.executed("comes again") == 1


def test_repeats_at_once_are_answered_by_one_request(
    gateway: Served, held: HeldEngine, others: ThreadPoolExecutor
):
    key = {"Idempotency-Key": "at once"}
    sent = [
        others.submit(gateway.ask, PATH, asked("at once"), headers=key)
        for _ in range(4)
    ]
    eventually(held.begun, PATIENCE)
    held.let_go()
    assert [each.result(PATIENCE)[0] for each in sent] == [200] * 4
    assert held.executed("at once") == 1
