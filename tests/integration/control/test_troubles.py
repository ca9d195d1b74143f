"""What control tells of hosts and engines, on a real server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelserver.control.steer import read_snapshot, steer
from modelserver.control.troubles import (
    FORGET_HOST_SECONDS,
    find_server_troubles,
    tell,
    tell_troubles,
)
from modelserver.fleet.file import Fleet
from modelserver.fleet.sections import ModelSection, RedisSection
from modelserver.inventory import GIB, Disk, Gpu, Host
from modelserver.operations.status import read_status
from modelserver.policy.placement.silent_hosts import HostSilences
from modelserver.policy.troubles import (
    CALM_SECONDS,
    FLAPS,
    Trouble,
    TroubleKind,
)
from modelserver.settings import Settings
from modelserver.store import Store, connect
from modelserver.store.fleet.alerts import last_alerts, open_alerts, write_troubles
from modelserver.store.fleet.engines import report_engine
from modelserver.store.fleet.hosts import read_hosts, report_host
from modelserver.values import EngineReport, EngineState
from tests.support.processes import ValkeyProcess, eventually


@pytest.fixture
def settings(valkey: ValkeyProcess, tmp_path: Path) -> Settings:
    models = (ModelSection(name="m", path="/m", engine="sglang-cpu"),)
    fleet = Fleet(models=models, redis=RedisSection(url=valkey.url))
    return Settings(fleet, tmp_path / "fleet.toml", tmp_path, "a")


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    store = connect(settings)
    yield store
    store.client.close()


def events(store: Store, kind: str) -> list[str]:
    return [each.event for each in last_alerts(store, 20) if each.kind == kind]


def test_a_fatal_engine_is_told_at_once_and_its_end_too(
    store: Store, settings: Settings
):
    report_host(store, Host("a"), lease_seconds=60)
    steer(store, settings, "one")
    fatal = EngineReport("m-0", "m", "a", EngineState.FATAL, 1, reason="no such file")
    report_engine(store, fatal)
    steer(store, settings, "one")
    (alert,) = [each for each in open_alerts(store) if each.kind == "fatal"]
    assert (alert.about, "no such file" in alert.text) == ("m", True)
    now = store.now()
    ready = EngineReport("m-0", "m", "a", EngineState.READY, 2, since=now, alive_at=now)
    report_engine(store, ready)
    steer(store, settings, "one")
    assert events(store, "fatal") == ["raised", "ended"]


def test_what_comes_and_goes_is_told_three_times_and_then_stands(
    store: Store, settings: Settings
):
    short = Trouble(TroubleKind.MEMORY, "redis", "the memory of Redis is short")
    began = store.now()
    for look in range(40):
        tell(store, settings, [short] if look % 2 == 0 else [], began + 2 * look)
    told = ["raised", "ended"] * (FLAPS - 1)
    assert events(store, "memory") == [*told, "raised"]
    assert [each.kind for each in open_alerts(store)] == ["memory"]
    tell(store, settings, [], began + 80 + CALM_SECONDS)
    assert events(store, "memory") == [*told, "raised", "ended"]


def test_what_launchers_tell_of_control_ends_with_its_next_look(
    store: Store, settings: Settings
):
    silent = Trouble(TroubleKind.CONTROL, "control", "control is silent")
    tell(store, settings, [silent], store.now() - 60)
    tell(store, settings, [silent], store.now())
    assert events(store, "control") == ["raised"]
    report_host(store, Host("a"), lease_seconds=60)
    steer(store, settings, "one")
    assert events(store, "control") == ["raised", "ended"]


def test_a_lost_host_and_what_hosts_report_are_told_after_their_time(
    store: Store, settings: Settings
):
    faulty = Gpu(0, "GPU-0", fault="XID 79")
    host = Host("a", (faulty,), disks=(Disk("/", 1, 100 * GIB),), clock_ahead_seconds=9)
    report_host(store, host, lease_seconds=60)
    report_host(store, Host("b"), lease_seconds=0.001)
    eventually(lambda: read_status(store, settings).lost_hosts == ("b",))
    steer(store, settings, "one")
    about = {"gpu": "a", "disk": "a", "clock": "a", "host": "b"}
    troubles = [Trouble(TroubleKind(k), v, "is wrong") for k, v in about.items()]
    tell(store, settings, troubles, store.now())
    assert [each for each in open_alerts(store) if each.about in "ab"] == []
    tell(store, settings, troubles, store.now() + 31)
    assert {each.kind for each in open_alerts(store)} >= {"gpu", "disk", "clock"}
    assert events(store, "host") == ["raised"]
    tell(store, settings, (), store.now() + 33)
    assert open_alerts(store) == ()
    assert events(store, "host") == ["raised", "ended"]


def test_data_that_are_not_saved_are_told_until_they_are(
    store: Store, settings: Settings, valkey: ValkeyProcess
):
    # The server goes on, but has no file to write to.
    store.client.config_set("stop-writes-on-bgsave-error", "no")
    file = valkey.folder / str(store.client.config_get("dbfilename")["dbfilename"])
    file.unlink(missing_ok=True)
    file.mkdir()

    def save() -> bool:
        store.client.bgsave()
        return eventually(lambda: not store.client.info()["rdb_bgsave_in_progress"])

    save()
    (trouble,) = find_server_troubles(store)
    assert trouble.kind is TroubleKind.PERSISTENCE
    file.rmdir()
    save()
    assert list(find_server_troubles(store)) == []


def test_a_host_that_does_not_return_is_forgotten_with_its_reports(
    store: Store, settings: Settings
):
    report_host(store, Host("a"), lease_seconds=60)
    report_host(store, Host("gone"), lease_seconds=0.001)
    report_engine(store, EngineReport("old-0", "old", "gone", EngineState.READY, 1))
    eventually(lambda: read_status(store, settings).lost_hosts == ("gone",))
    now = store.now()
    lost = {"host:gone": {"since": now - FORGET_HOST_SECONDS - 1, "told": 1}}
    write_troubles(store, json.dumps(lost))
    silences = HostSilences(since={"gone": now - 60})
    snapshot = read_snapshot(store, settings, read_hosts(store))
    tell_troubles(store, settings, snapshot, {}, silences, (), now)
    status = read_status(store, settings)
    assert (status.lost_hosts, status.engines) == ((), ())
