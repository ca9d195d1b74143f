"""Records that cannot be read keep nobody from all the others."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from modelserver.control.applied_fleet import provide
from modelserver.control.steer import steer
from modelserver.operations.status import read_status
from modelserver.store.fleet.alerts import last_alerts, open_alerts
from modelserver.store.fleet.control import read_all_wishes, read_steered
from modelserver.store.fleet.engines import read_engines
from modelserver.store.fleet.hosts import report_host
from modelserver.store.fleet.measurements import read_samples
from modelserver.store.fleet.orders import give, orders
from modelserver.store.fleet.workers import read_workers
from modelserver.store.messages.dead_letters import dead_letters
from modelserver.store.runs.hosted import read_holders, read_hosted
from modelserver.values import Order
from tests.support.fleet_records import Records
from tests.support.processes import ROOT, ValkeyProcess

#: The record that each kind has one of, by key and field.
HASHES = {
    "engines": "m-0",
    "desired": "m-0",
    "metrics": "m-0",
    "open_alerts": "stutter:m-0",
    "operator": "hold:m-0",
    "dead": "task",
}
#: The keys that control alone remembers things by.
MEMORIES = ("silences", "troubles", "outages", "steered", "availability")
#: What may stand in place of a record.
UNREADABLE = ("", "{", "null", "[]", "7", '{"a": {"b": null}}')


@pytest.fixture
def records(tmp_path: Path, valkey: ValkeyProcess) -> Iterator[Records]:
    records = Records.open(tmp_path, valkey.url, ["m", "n"])
    yield records
    records.store.client.close()


@pytest.mark.parametrize("value", UNREADABLE)
def test_one_record_that_cannot_be_read_hides_no_other(records: Records, value: str):
    store, settings = records.store, records.settings
    records.write(3, runs=2)
    give(store, Order("drain", "n-0"))
    (host,) = read_status(store, settings).hosts
    report_host(store, host, lease_seconds=3600)
    keys = store.keys
    for name, field in HASHES.items():
        store.client.hset(getattr(keys, name), field, value)
    store.client.lpush(keys.samples("m-1"), value)
    store.client.lpush(keys.canaries("m-1"), value)
    for kind, name in (("worker", "odd"), ("host", "odd"), ("holder", "odd")):
        store.client.sadd(getattr(keys, f"{kind}s"), name)
        store.client.set(getattr(keys, kind)(name), value)
    for name in MEMORIES:
        store.client.set(getattr(keys, name), value)
    (run, other) = (f"run{number:012x}" for number in range(2))
    store.client.hset(keys.hosted_run(run), "run", value)

    assert set(read_engines(store)) == {"m-1", "m-2"}
    assert read_all_wishes(store)[1] == {"m-0"}
    assert len(read_samples(store, "m-1")) == 64
    assert [each.target for each in orders(store)] == ["n-0"]
    assert [each.name for each in read_holders(store)] == ["batches-1"]
    assert [each.run.id for each in read_hosted(store, [run, other])] == [other]
    assert open_alerts(store) == dead_letters(store) == ()
    assert "worker-host-0" in read_workers(store)
    status = read_status(store, settings)
    assert [each.name for each in status.hosts] == ["host-0"]
    steer(store, settings, "one")
    assert read_status(store, settings).steered_by == "one"


def test_what_control_cannot_read_is_said_once_and_not_at_each_look(records: Records):
    store = records.store
    store.client.hset(store.keys.engines, "m-0", "{")
    looks = "from tasks.control import steer; steer(); steer()"
    done = subprocess.run(
        [sys.executable, "-c", looks],
        cwd=ROOT,
        env={**os.environ, **records.environment},
        capture_output=True,
        text=True,
        check=True,
    )
    told = "the report of engine m-0 in Redis cannot be read"
    assert done.stderr.count(told) == 1
    assert read_status(store, records.settings).steered_by


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"engine": "', '"engine": "newer-'),
        ('"rules": {', '"rules": {"newer_seconds": 1, '),
        ('"salt": ', '"pepper": '),
    ],
)
def test_a_fleet_that_cannot_be_read_is_no_fleet_to_look_at(
    records: Records, caplog: pytest.LogCaptureFixture, old: str, new: str
):
    """Control of the newer version looks; where none does, that is told as silence."""
    store, settings = records.store, records.settings
    applied = provide(store, settings).text
    assert old in applied
    store.client.set(store.keys.fleet, applied.replace(old, new))
    for _ in range(3):
        assert steer(store, settings, "older") == []
    assert read_steered(store) == (0.0, "")
    assert caplog.text.count("the applied fleet in Redis cannot be read") == 1
    store.client.set(store.keys.fleet, applied)
    steer(store, settings, "older")
    assert read_steered(store)[1] == "older"


def test_what_a_newer_version_adds_is_passed_over(records: Records):
    store, settings = records.store, records.settings
    records.write(2)
    keys = store.keys
    (alert,) = last_alerts(store, 1)
    newer = {name: str(value) for name, value in asdict(alert).items()}
    store.client.xadd(keys.alerts, {**newer, "severity": "high"})
    assert last_alerts(store, 2) == (alert, alert)
    store.client.set(keys.steered, json.dumps([store.now(), "one", "newer"]))
    report = read_workers(store)["worker-host-0"]
    loads = {"m-0": [3, 4.0, 0.1, "newer"]}
    store.client.set(keys.worker("worker-host-0"), json.dumps({"loads": loads}))
    assert report["pid"] == 99
    sample = read_samples(store, "m-0")[0]
    packed = json.loads(str(store.client.lindex(keys.samples("m-0"), 0)))
    store.client.lpush(keys.samples("m-0"), json.dumps([*packed, "newer"]))
    assert read_samples(store, "m-0")[0] == sample
    status = read_status(store, settings)
    assert [(e.id, e.inflight) for e in status.engines if e.inflight] == [("m-0", 3)]
