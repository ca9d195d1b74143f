"""An engine is ended by its cause, whatever words its reason is made of."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelserver.operations.incidents import read_incidents
from modelserver.settings import load
from modelserver.store.fleet.measurements import read_counters
from modelserver.store.fleet.workers import read_loads
from modelserver.values import Cause, EngineState, Wish
from tests.support.fleets import CLI, Hosts, model, open_hosts
from tests.support.launchers import Site, in_flight, open_site, stats
from tests.support.processes import ROOT, ValkeyProcess, eventually, lives


@pytest.fixture
def site(tmp_path: Path, valkey: ValkeyProcess) -> Iterator[Site]:
    with open_site(tmp_path, valkey) as site:
        yield site


@pytest.fixture
def hosts(tmp_path: Path, valkey: ValkeyProcess) -> Iterator[Hosts]:
    with open_hosts(tmp_path, valkey.url, model("m", "--latency", "3")) as hosts:
        yield hosts


def relaunch_as(hosts: Hosts, login: str, engine: str) -> None:
    subprocess.run(
        [*CLI, "relaunch", engine],
        cwd=ROOT,
        env={**os.environ, **hosts.environment(), "LOGNAME": login},
        capture_output=True,
        timeout=60,
        check=True,
    )


def has_requests(hosts: Hosts, engine: str) -> bool:
    load = read_loads(hosts.store).get(engine)
    return load is not None and load.inflight > 0


@pytest.mark.parametrize("login", ["hung", "slow", "error"])
def test_a_login_with_the_name_of_a_fault_drains_the_engine_and_keeps_no_incident(
    site: Site, login: str
) -> None:
    site.launch()
    spec = site.want("patient").spec
    old = site.reaches("patient-0", EngineState.READY)
    in_flight(site, "patient-0", 1)
    reason = f"asked for by {login}"
    site.wish("patient-0", Wish(spec, relaunch=1, reason=reason, cause=Cause.ASKED))
    draining = site.reaches("patient-0", EngineState.DRAINING)
    assert draining.reason == reason
    eventually(lambda: site.store.now() - draining.since > 3)
    assert stats(old)["pid"] == old.pid
    in_flight(site, "patient-0", 0)
    site.reaches("patient-0", EngineState.READY, incarnation=2)
    assert not lives(old.pid)
    assert read_incidents(site.run_dir) == ()


def test_an_engine_that_is_relaunched_by_hung_finishes_what_it_has(
    hosts: Hosts,
) -> None:
    hosts.launch("a")
    hosts.worker("a")
    hosts.ready("m-0")
    result = hosts.complete.delay("hi", max_tokens=2)
    eventually(lambda: has_requests(hosts, "m-0"))
    relaunch_as(hosts, "hung", "m-0")
    assert hosts.ready("m-0", incarnation=2).incarnation == 2
    assert result.get(timeout=60)
    counted = read_counters(hosts.store, "m-0")
    assert counted["ok"] == 1
    assert not counted.keys() & {"cancelled", "engine-fault"}
    assert read_incidents(load(hosts.environment("a")).run_dir) == ()


def test_a_changed_variable_with_the_name_of_a_fault_restarts_and_keeps_no_incident(
    hosts: Hosts,
) -> None:
    hosts.apply(model("m", environment={"X_ERROR_LIMIT": "1"}))
    hosts.launch("a")
    hosts.worker("a")
    old = hosts.ready("m-0")
    said = hosts.apply(model("m", environment={"X_ERROR_LIMIT": "2"}))
    assert "environment.X_ERROR_LIMIT changed" in said
    assert hosts.ready("m-0", incarnation=2).pid != old.pid
    assert read_incidents(load(hosts.environment("a")).run_dir) == ()


def test_a_host_that_cannot_write_says_so_once_and_goes_on_by_itself(
    site: Site,
) -> None:
    launcher = site.launch()
    eventually(lambda: "launcher up" in launcher.said())
    # As on a full disk: the record of an engine cannot be written.
    in_the_way = site.run_dir / "engines" / "patient-0.unfinished"
    in_the_way.mkdir(parents=True)
    site.want("patient")
    eventually(lambda: "this host cannot prepare its files" in launcher.said())
    began = site.store.now()
    eventually(lambda: site.store.now() - began > 4)
    said = launcher.said()
    assert "Traceback" not in said
    assert said.count("this host cannot prepare its files") == 1
    in_the_way.rmdir()
    site.reaches("patient-0", EngineState.READY)
