"""Requests that are refused at the gateway, and what their clients are told."""

import asyncio
import threading
import time

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from modelserver.gateway.admission import OLD_SECONDS, Admission
from modelserver.gateway.bodies import read_body
from modelserver.gateway.faults import Refused
from modelserver.gateway.headers import Caller
from modelserver.gateway.waiting import ModelLoad

#: What ought to come at once may take so long, in seconds.
PATIENCE = 20.0
ASKED = read_body("/v1/completions", {"model": "writer", "prompt": "one"})


def full() -> ModelLoad:
    """A minute's work of ana's waits."""
    return ModelLoad(time.monotonic(), ({"ana": 60},), 1, 1, 1.0, 1.0, 1.0)


def check(
    load: ModelLoad | None,
    caller: Caller,
    patience: float | None = None,
    default: float | None = None,
) -> tuple[Refused | None, str]:
    """What comes of a request, and the metrics after it."""
    registry = CollectorRegistry()

    async def ask() -> None:
        admission = Admission(lambda model: load, lambda: default, registry)
        await admission.check(ASKED, caller, patience)

    refused = None
    try:
        asyncio.run(ask())
    except Refused as error:
        refused = error
    return refused, generate_latest(registry).decode()


def test_a_refused_request_is_told_when_to_come_again_and_counted():
    refused, metrics = check(full(), Caller("ana", deadline=20.0))
    assert refused is not None
    fault = refused.fault
    assert (fault.status, fault.kind) == (429, "requests")
    assert fault.body()["error"]["code"] == "rate_limit_exceeded"
    assert int(fault.headers["Retry-After"]) in range(30, 42)
    assert 'modelserver_gateway_refused_total{model="writer"} 1.0' in metrics


@pytest.mark.parametrize(
    ("deadline", "own", "patience", "is_refused"),
    [
        (None, None, None, False),
        (None, None, 20.0, True),
        (None, 20.0, None, True),
        (20.0, None, 300.0, True),
        (300.0, 20.0, None, False),
        (None, 300.0, 20.0, True),
    ],
)
def test_the_client_says_when_an_answer_is_due_or_else_the_fleet(
    deadline: float | None, own: float | None, patience: float | None, is_refused: bool
):
    refused, _ = check(full(), Caller("ana", deadline=deadline), patience, own)
    assert (refused is not None) == is_refused


def test_nobody_is_refused_where_nothing_is_known():
    assert check(None, Caller("ana", deadline=1.0))[0] is None


def test_a_repeat_finds_its_answer_however_much_waits():
    caller = Caller("ana", deadline=1.0, idempotency_key="once")
    assert check(full(), caller)[0] is None


def test_a_look_that_fails_lets_all_in():
    def look(model: str) -> ModelLoad:
        raise ZeroDivisionError

    async def ask() -> None:
        admission = Admission(look, lambda: None, CollectorRegistry())
        for _ in range(2):
            await admission.check(ASKED, Caller("ana", deadline=0.1), None)

    asyncio.run(ask())


def test_nobody_waits_for_a_look_while_the_last_one_is_not_old():
    looks = []

    def look(model: str) -> ModelLoad:
        looks.append(model)
        at = time.monotonic() - OLD_SECONDS / 2
        return ModelLoad(at, ({"ana": 60},), 1, 1, 1.0, 1.0, 1.0)

    async def ask() -> None:
        admission = Admission(look, lambda: None, CollectorRegistry())
        for number in (1, 1, 2):
            with pytest.raises(Refused):
                await admission.check(ASKED, Caller("ana", deadline=20.0), None)
            assert len(looks) == number
            while asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})

    asyncio.run(ask())


def test_the_loop_goes_on_while_the_fleets_deadline_is_looked_up():
    went_on = threading.Event()

    async def ask() -> None:
        asyncio.get_running_loop().call_soon(went_on.set)
        admission = Admission(
            lambda model: full(),
            lambda: 20.0 if went_on.wait(PATIENCE) else None,
            CollectorRegistry(),
        )
        with pytest.raises(Refused):
            await admission.check(ASKED, Caller("ana"), None)

    asyncio.run(ask())


def test_what_no_engine_is_ready_for_is_told_of_the_start():
    refused, _ = check(
        ModelLoad(time.monotonic(), ready_seconds=60.0), Caller("ana", deadline=20.0)
    )
    assert refused is not None
    assert "its engine still starts" in refused.fault.message


def test_nothing_is_looked_at_for_a_request_without_a_deadline():
    looks: list[str] = []

    async def ask() -> None:
        admission = Admission(looks.append, lambda: None, CollectorRegistry())
        await admission.check(ASKED, Caller("ana"), None)

    asyncio.run(ask())
    assert looks == []
