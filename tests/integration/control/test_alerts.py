"""Alerts on a real server."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from modelserver.control.alerts import end_alert, raise_alert
from modelserver.control.steer import read_snapshot, steer
from modelserver.control.troubles import tell_troubles
from modelserver.fleet.sections import AlertsSection, ModelSection
from modelserver.inventory import Host
from modelserver.operations.host_checks import find_no_worker
from modelserver.operations.status import read_status
from modelserver.policy.placement.silent_hosts import HostSilences
from modelserver.policy.troubles import FLAPS
from modelserver.settings import Settings
from modelserver.store import Store
from modelserver.store.fleet.alerts import (
    counts,
    last_alerts,
    open_alerts,
)
from modelserver.store.fleet.availability import standings
from modelserver.store.fleet.engines import remove_engine, report_engine
from modelserver.store.fleet.hosts import read_hosts, report_host
from modelserver.values import EngineReport, EngineState
from tests.support.alerts import alert_settings
from tests.support.processes import ValkeyProcess


def test_an_alert_is_logged_kept_and_counted(
    store: Store, settings: Settings, caplog: pytest.LogCaptureFixture
):
    assert raise_alert(store, settings, "m-0", "m-0 is slow: 2.1x", 100.0)
    (alert,) = last_alerts(store, 10)
    assert (alert.about, alert.text, alert.at) == ("m-0", "m-0 is slow: 2.1x", 100.0)
    assert counts(store) == {"raised": 1}
    assert "alert about=m-0 m-0 is slow: 2.1x" in caplog.text


def test_the_same_alert_with_other_figures_is_told_once(
    store: Store, settings: Settings
):
    now = store.now()
    assert raise_alert(store, settings, "m-0", "slow: 2.1x of 40", now)
    assert not raise_alert(store, settings, "m-0", "slow: 2.2x of 41", now + 10)
    assert raise_alert(store, settings, "m-1", "slow: 2.1x of 40", now)
    assert raise_alert(store, settings, "m-0", "fails at requests", now)
    assert counts(store) == {"raised": 3, "repeated": 1}
    assert len(open_alerts(store)) == 2


def test_what_is_over_is_told_and_may_begin_again(store: Store, settings: Settings):
    now = store.now()
    assert not end_alert(store, settings, "m", "m is back", now, "down")
    assert raise_alert(store, settings, "m", "m is down", now, "down")
    assert end_alert(store, settings, "m", "m is back", now + 5, "down")
    assert open_alerts(store) == ()
    assert raise_alert(store, settings, "m", "m is down", now + 9, "down")
    events = [(each.event, each.text) for each in last_alerts(store, 10)]
    assert events == [
        ("raised", "m is down"),
        ("ended", "m is back"),
        ("raised", "m is down"),
    ]


def ready(store: Store) -> None:
    """Have host a report a ready engine of m, as a launcher does."""
    now = store.now()
    report_engine(
        store,
        EngineReport("m-0", "m", "a", EngineState.READY, 1, since=now, alive_at=now),
    )
    report_host(store, Host("a"), lease_seconds=60)


def test_a_model_that_has_nothing_left_is_told_and_its_return_too(
    valkey: ValkeyProcess,
    tmp_path: Path,
    store: Store,
    caplog: pytest.LogCaptureFixture,
):
    model = ModelSection(
        name="m",
        path="/m",
        engine="sglang-cpu",
        when_down="fail",
        down_after_seconds=0,
    )
    settings = alert_settings(valkey, tmp_path, AlertsSection(), model)
    with caplog.at_level(logging.WARNING):
        steer(store, settings, "one")
        steer(store, settings, "one")
    (alert,) = open_alerts(store)
    assert (alert.about, alert.kind) == ("m", "down")
    assert alert.text.startswith("m is down: no ready engine for 0 s")
    assert "no launcher reports" in alert.text
    assert alert.text.endswith("; its requests fail")
    assert standings(store)["m"]["then"] == "fail"
    assert len(last_alerts(store, 10)) == 1
    report_host(store, Host("a"), lease_seconds=60)
    steer(store, settings, "one")
    ready(store)
    steer(store, settings, "one")
    assert open_alerts(store) == ()
    assert last_alerts(store, 1)[0].text.startswith("m is back")
    assert standings(store)["m"]["then"] == "go"


def test_a_model_that_leaves_the_fleet_is_down_no_longer(
    valkey: ValkeyProcess, tmp_path: Path, store: Store
):
    model = ModelSection(name="m", path="/m", engine="sglang-cpu", down_after_seconds=0)
    steer(store, alert_settings(valkey, tmp_path, AlertsSection(), model), "one")
    assert len(open_alerts(store)) == 1
    steer(store, alert_settings(valkey, tmp_path, AlertsSection()), "one")
    assert open_alerts(store) == ()
    assert standings(store) == {}


def test_a_host_whose_worker_ended_is_told_and_named(
    valkey: ValkeyProcess, tmp_path: Path, store: Store
):
    model = ModelSection(name="m", path="/m", engine="sglang-cpu")
    settings = alert_settings(valkey, tmp_path, AlertsSection(), model)
    report_host(store, Host("a"), lease_seconds=60)
    steer(store, settings, "one")
    ready(store)
    report = {"node": "w", "host": "b", "pid": 1, "held": 0, "loads": {}}
    store.client.sadd(store.keys.workers, "w")
    store.client.set(store.keys.worker("w"), json.dumps(report))
    steer(store, settings, "one")
    assert "host a has no worker" in standings(store)["m"]["reason"]
    status = read_status(store, settings)
    (check,) = find_no_worker(status, status.hosts[0])
    assert (check.what, "modelserver worker" in check.remedy) == ("host a", True)

    began = store.now()

    def look(worker: str, after: float) -> None:
        snapshot = replace(
            read_snapshot(store, settings, read_hosts(store)), worker_hosts=(worker,)
        )
        tell_troubles(store, settings, snapshot, {}, HostSilences(), (), began + after)

    def told() -> list[str]:
        return [each.about for each in open_alerts(store) if each.kind == "worker"]

    look("b", 10)
    assert told() == []
    look("b", 41)
    assert told() == ["a"]
    look("a", 45)
    assert told() == []


def test_a_model_that_is_down_again_and_again_is_told_three_times_and_then_stands(
    valkey: ValkeyProcess, tmp_path: Path, store: Store
):
    model = ModelSection(name="m", path="/m", engine="sglang-cpu", down_after_seconds=0)
    settings = alert_settings(valkey, tmp_path, AlertsSection(), model)
    report_host(store, Host("a"), lease_seconds=60)
    for look in range(20):
        if look % 2:
            ready(store)
        else:
            remove_engine(store, "m-0")
        steer(store, settings, "one")
    told = [each.event for each in last_alerts(store, 100) if each.kind == "down"]
    assert told == ["raised", "ended"] * (FLAPS - 1) + ["raised"]
    assert [each.about for each in open_alerts(store)] == ["m"]
