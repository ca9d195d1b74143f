"""Engines that an earlier launcher started: adopted, left alone, or started anew."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.host.records import Records
from modelserver.store.fleet.applied import read_applied_fleet
from modelserver.store.fleet.hosts import read_hosts
from modelserver.values import EngineReport, EngineState
from tests.support.launchers import Site, open_site, stats
from tests.support.processes import ValkeyProcess, eventually, lives


@pytest.fixture
def site(tmp_path: Path, valkey: ValkeyProcess) -> Iterator[Site]:
    with open_site(tmp_path, valkey) as site:
        yield site


def left_alone(site: Site) -> tuple[EngineReport, Records]:
    """Two engines whose launcher was killed: the good one, and the records of both."""
    first = site.launch()
    site.want("good")
    site.want("other")
    good = site.reaches("good-0", EngineState.READY)
    site.reaches("other-0", EngineState.READY)
    first.signal(signal.SIGKILL)
    first.wait()
    return good, Records(site.run_dir / "engines")


def test_killed_launcher_comes_back_and_adopts(site: Site) -> None:
    first = site.launch()
    site.want("good")
    before = site.reaches("good-0", EngineState.READY)
    old = before.alive_at
    first.signal(signal.SIGKILL)
    first.wait()
    site.launch()
    eventually(lambda: site.reaches("good-0", EngineState.READY).alive_at > old)
    after = site.reaches("good-0", EngineState.READY)
    assert (after.pid, after.incarnation) == (before.pid, before.incarnation)
    assert "adopted" in site.said()


def test_an_engine_of_a_type_that_is_not_known_is_left_alone_and_others_adopted(
    site: Site,
) -> None:
    """As after a newer launcher, whose fleet had a model of a newer type."""
    good, records = left_alone(site)
    (newer,) = [each for each in records.read_all() if each.spec.id == "good-0"]
    assert newer.model
    spec = replace(newer.spec, model="gone", id="gone-0")
    model = replace(newer.model, name="gone", engine="newer")
    records.remove("good-0")
    records.write(replace(newer, spec=spec, model=model))
    site.wish("good-0", None)
    site.launch()
    eventually(lambda: "engine=gone-0 is not adopted and left alone" in site.said())
    eventually(lambda: "engine=other-0" in site.said().split("left alone")[-1])
    assert site.reaches("other-0", EngineState.READY).incarnation == 1
    assert lives(good.pid)
    assert "gone-0" in {each.spec.id for each in records.read_all()}


def test_engines_are_watched_where_the_fleet_is_of_a_newer_version(site: Site) -> None:
    first = site.launch()
    site.want("good")
    before = site.reaches("good-0", EngineState.READY)
    first.signal(signal.SIGKILL)
    first.wait()
    fleet = read_applied_fleet(site.store)
    newer = fleet.replace('"rules": {', '"rules": {"newer_seconds": 1, ')
    site.store.client.set(site.store.keys.fleet, newer)
    site.launch()
    eventually(lambda: "are watched meanwhile" in site.said())
    eventually(lambda: "adopted" in site.said())
    site.store.client.set(site.store.keys.fleet, fleet)
    eventually(lambda: "fleet version=1 applied by" in site.said())
    old = before.alive_at
    eventually(lambda: site.reaches("good-0", EngineState.READY).alive_at > old)
    after = site.reaches("good-0", EngineState.READY)
    assert (after.pid, after.incarnation) == (before.pid, before.incarnation)


def test_adopted_engine_that_dies_is_started_again(site: Site) -> None:
    first = site.launch()
    site.want("good")
    before = site.reaches("good-0", EngineState.READY)
    first.signal(signal.SIGKILL)
    first.wait()
    site.launch()
    eventually(lambda: "STARTING -> READY" in site.said().partition("adopted")[2])
    os.kill(before.pid, signal.SIGKILL)
    site.reaches("good-0", EngineState.READY, incarnation=2)


def test_engine_that_died_without_a_launcher_is_started_anew(site: Site) -> None:
    first = site.launch()
    site.want("good")
    before = site.reaches("good-0", EngineState.READY)
    child = stats(before)["child_pid"]
    first.signal(signal.SIGKILL)
    first.wait()
    os.kill(before.pid, signal.SIGKILL)
    site.launch()
    site.reaches("good-0", EngineState.READY, incarnation=2)
    assert not lives(child)


def test_a_record_that_cannot_be_gone_by_keeps_no_other_engine_alone(
    site: Site,
) -> None:
    good, records = left_alone(site)
    (record,) = [each for each in records.read_all() if each.spec.id == "good-0"]
    # Numbers of JSON need not be whole.
    odd = replace(record.process, pid=record.process.pid + 0.5)  # type: ignore[arg-type]
    records.write(replace(record, process=odd))
    second = site.launch()
    alive = site.reaches("other-0", EngineState.READY).alive_at
    eventually(lambda: site.reaches("other-0", EngineState.READY).alive_at > alive)
    (trouble,) = eventually(lambda: read_hosts(site.store)[0].troubles)
    assert "engine good-0: its launcher fails to adopt it (TypeError" in trouble
    assert site.said().count("the launcher fails to adopt it") == 1
    # No second one is started beside it.
    assert lives(good.pid)
    assert site.said().count("engine=good-0 PENDING -> STARTING") == 1
    second.signal(signal.SIGTERM)
    assert second.wait() == 0
