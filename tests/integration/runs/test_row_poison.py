"""Rows that kill engines, under a real launcher, and the rights that rows need."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelserver.store.fleet.engines import read_engines
from modelserver.store.fleet.workers import read_loads
from modelserver.store.messages.dead_letters import dead_letters
from modelserver.store.server.trouble import rights
from tests.support.fragile import open_fragile_fleet
from tests.support.processes import ValkeyProcess, eventually
from tests.support.runs import (
    assert_answered,
    collect,
    kinds,
    make_rows,
    open_lane,
    prompt_of,
)
from tests.support.workers import PATIENCE, FleetSite, open_fleet


@pytest.fixture
def fleet(tmp_path: Path, valkey: ValkeyProcess) -> Iterator[FleetSite]:
    """A launcher, a worker and one engine that dies of a certain row."""
    with open_fragile_fleet(tmp_path, valkey.url, prompt_of(777), "0.5") as site:
        yield site


def test_a_row_that_kills_engines_ends_and_its_neighbours_are_answered(
    fleet: FleetSite,
):
    lane = open_lane(fleet)
    lane.send(make_rows(range(770, 790), model="fragile"))
    found = collect(lane, 20, within=90)
    assert {n: kind for n, kind in kinds(found).items() if kind} == {777: "PoisonError"}
    error = found.pop(777).error
    assert error
    assert error.message == "2 engines died with row 777"
    assert_answered(found, sorted(found))
    assert dead_letters(fleet.store) == ()


def test_only_what_was_on_an_engine_that_died_is_suspected(fleet: FleetSite):
    lane = open_lane(fleet)
    lane.send(make_rows(range(200), model="fragile"))

    def on_engine() -> int:
        load = read_loads(fleet.store).get("fragile-0")
        return load.inflight if load else 0

    eventually(lambda: on_engine() == 64, PATIENCE)
    os.kill(read_engines(fleet.store)["fragile-0"].pid, signal.SIGKILL)
    assert_answered(collect(lane, 200, within=90), range(200))


def test_rows_need_no_more_rights_than_a_fleet_has(
    tmp_path: Path, valkey: ValkeyProcess
):
    with open_fleet(tmp_path, valkey.url) as site:
        words = ["on", ">secret", *rights("ms:").split()]
        site.store.run("ACL", "SETUSER", "limited", *words)
    url = valkey.url.replace("//", "//limited:secret@")
    with open_fleet(tmp_path, url) as site:
        site.engine("writer-0")
        lane = open_lane(site)
        lane.send(make_rows(range(50)))
        assert lane.cancel() == 50
        assert set(kinds(collect(lane, 50)).values()) == {"cancelled"}
        site.worker()
        lane.send(make_rows(range(50)))
        assert_answered(collect(lane, 50), range(50))
