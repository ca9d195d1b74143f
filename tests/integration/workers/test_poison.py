"""Requests that kill engines, under a real launcher that starts them again."""

import json
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from celery.result import AsyncResult

from modelserver.errors import PoisonError
from modelserver.messaging.wire import result_key
from modelserver.store.fleet.engines import read_engines
from modelserver.store.fleet.workers import read_loads
from modelserver.store.messages.dead_letters import dead_letters, discard, resubmit
from modelserver.values import EngineReport
from tests.engine.openai_api import answer_text
from tests.support.fragile import open_fragile_fleet
from tests.support.launchers import fault
from tests.support.processes import ValkeyProcess, eventually
from tests.support.workers import PATIENCE, FleetSite, answers, open_fleet


@pytest.fixture
def latency(request: pytest.FixtureRequest) -> str:
    """What a request takes, in seconds."""
    return str(getattr(request, "param", "0.1"))


@pytest.fixture
def places(request: pytest.FixtureRequest) -> str:
    """What the engine takes at once."""
    return str(getattr(request, "param", "64"))


@pytest.fixture
def fleet(
    tmp_path: Path, valkey: ValkeyProcess, latency: str, places: str
) -> Iterator[FleetSite]:
    """A launcher, a worker and one engine that dies of a certain prompt."""
    with open_fragile_fleet(tmp_path, valkey.url, "POISON", latency, places) as site:
        yield site


def test_a_request_that_kills_engines_is_set_aside_and_its_neighbours_are_answered(
    fleet: FleetSite,
):
    names = [f"n{i}" for i in range(6)]
    neighbours = fleet.send(names, kwargs={"model": "fragile"})
    poison = fleet.complete.delay("a POISON b", model="fragile")
    with pytest.raises(PoisonError, match="2 engines of fragile died"):
        poison.get(timeout=60)
    assert answers(neighbours, within=60) == [answer_text(name) for name in names]
    (letter,) = dead_letters(fleet.store)
    assert (letter.task, letter.queue) == (poison.id, "fragile")
    assert read_engines(fleet.store)["fragile-0"].died >= 2
    key = partial(result_key, fleet.settings)
    assert resubmit(fleet.store, letter, key)
    assert AsyncResult(poison.id, app=fleet.app).state == "PENDING"
    assert not resubmit(fleet.store, letter, key)


@pytest.mark.parametrize(("latency", "places"), [("0.5", "8")], indirect=True)
def test_of_two_workers_one_runs_the_suspects(fleet: FleetSite):
    """Both at once would blame a neighbour that ran beside the one to blame."""
    fleet.worker()
    names = [f"t{i}" for i in range(8)]
    neighbours = fleet.send(names[:4], kwargs={"model": "fragile"})
    poison = fleet.complete.delay("a POISON b", model="fragile")
    neighbours += fleet.send(names[4:], kwargs={"model": "fragile"})
    with pytest.raises(PoisonError, match="2 engines of fragile died"):
        poison.get(timeout=90)
    assert answers(neighbours, within=90) == [answer_text(name) for name in names]
    assert [letter.task for letter in dead_letters(fleet.store)] == [poison.id]


@pytest.mark.parametrize("latency", ["1.5"], indirect=True)
def test_suspects_are_told_apart_without_holding_others_up(fleet: FleetSite):
    """64 on an engine that is killed: in a few rounds, and others run meanwhile."""
    names = [f"s{i}" for i in range(64)]
    engine = eventually(lambda: serving(fleet))
    fault(engine, hang=True)
    suspects = fleet.send(names, kwargs={"model": "fragile"})
    eventually(lambda: load_of(fleet) == 64, PATIENCE)
    os.kill(engine.pid, signal.SIGKILL)
    eventually(lambda: read_engines(fleet.store)["fragile-0"].died >= 1, PATIENCE)
    eventually(lambda: load_of(fleet) == 16, PATIENCE)
    began = time.monotonic()
    others = fleet.send(["beside"] * 8, kwargs={"model": "fragile"})
    assert answers(others, within=60) == [answer_text("beside")] * 8
    assert not all(each.ready() for each in suspects)
    assert answers(suspects, within=60) == [answer_text(name) for name in names]
    assert time.monotonic() - began < 45
    assert dead_letters(fleet.store) == ()


def serving(fleet: FleetSite) -> EngineReport | None:
    """The one engine, once it can be used."""
    engine = read_engines(fleet.store).get("fragile-0")
    return engine if engine and engine.serves else None


def load_of(fleet: FleetSite) -> int:
    """Requests in flight on the one engine."""
    load = read_loads(fleet.store).get("fragile-0")
    return load.inflight if load else 0


def test_a_forgotten_dead_letter_is_gone(tmp_path: Path, valkey: ValkeyProcess):
    with open_fleet(tmp_path, valkey.url) as site:
        letter = {
            "queue": "m",
            "reason": "r",
            "at": 1.0,
            "source": "m",
            "message": "{}",
        }
        site.store.client.hset(site.store.keys.dead, "task-1", json.dumps(letter))
        (found,) = dead_letters(site.store)
        assert discard(site.store, found)
        assert not discard(site.store, found)
        assert dead_letters(site.store) == ()
