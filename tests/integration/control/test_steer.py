"""Control against a real server."""

import logging
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelserver.control.silent_hosts import follow_silences
from modelserver.control.steer import read_snapshot, steer
from modelserver.fleet.file import Fleet
from modelserver.fleet.sections import (
    HostSection,
    ModelSection,
    RedisSection,
    RulesSection,
)
from modelserver.inventory import Host
from modelserver.messaging.bundles import BundleHead, write_bundle
from modelserver.messaging.wire import COMPLETE
from modelserver.policy.actions import Action, Relaunch, Want
from modelserver.policy.health.memory import from_json
from modelserver.policy.replay import look_from_json
from modelserver.settings import Settings
from modelserver.store import Store, connect
from modelserver.store.fleet.control import (
    hold_control,
    read_memory,
    read_steered,
    read_waiting,
    read_wishes,
    write_wishes,
)
from modelserver.store.fleet.decisions import (
    SNAPSHOT_BYTES_KEPT,
    SNAPSHOTS_KEPT,
    keep_look,
    kept_look,
)
from modelserver.store.fleet.engines import remove_engine, report_engine
from modelserver.store.fleet.hosts import end_host_lease, read_hosts, report_host
from modelserver.store.runs.feeding import SentBundle, add_send
from modelserver.values import EngineReport, EngineSpec, EngineState, Wish
from tests.support.processes import ROOT, ValkeyProcess, eventually

#: A controller in a process of its own, which looks as fast as it can.
CONTROLLER = """
import sys
from pathlib import Path
from modelserver.control.steer import steer
from modelserver.store import connect
from tests.integration.control.test_steer import settings_of
settings = settings_of(sys.argv[1], Path("/nowhere"))
store = connect(settings)
print("up", flush=True)
while True:
    steer(store, settings, sys.argv[2])
"""

#: Of an engine that has been silent for 90 s, and until control looks.
HUNG = re.compile(r"hung: no token for 9\d s")
#: No launcher is there that would renew the lease of its host.
LEASE_SECONDS = 3_600
MODEL = ModelSection(name="m", path="/m", engine="sglang-cpu")
SPEC = EngineSpec("m-0", "m", "a")


@pytest.fixture
def settings(valkey: ValkeyProcess, tmp_path: Path) -> Settings:
    return settings_of(valkey.url, tmp_path)


def settings_of(url: str, folder: Path) -> Settings:
    fleet = Fleet(
        models=(MODEL,),
        redis=RedisSection(url=url),
        rules=RulesSection(hang_seconds=60, judge_engines=True),
    )
    return Settings(fleet, folder / "fleet.toml", folder, "a")


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    store = connect(settings)
    yield store
    store.client.close()


def decisions(store: Store) -> list[dict[str, str]]:
    return [fields for _, fields in store.client.xrange(store.keys.decisions)]


def ready(store: Store, silent_seconds: float, incarnation: int = 1) -> None:
    """Have host a report its engine, and then itself, as a launcher does."""
    at = store.now() - silent_seconds
    engine = EngineReport(
        "m-0", "m", "a", EngineState.READY, incarnation, since=at, alive_at=at
    )
    report_engine(store, engine)
    report_host(store, Host("a"), LEASE_SECONDS)


def test_a_fleet_without_hosts_gets_no_wish(store: Store, settings: Settings):
    assert steer(store, settings, "one") == []
    assert read_wishes(store) == {}


def test_why_an_engine_has_no_place_stands_in_the_store_as_long_as_it_is_so(
    store: Store, settings: Settings
):
    steer(store, settings, "one")
    assert read_waiting(store) == {
        "m-0": "no launcher reports; start one on each host with engines"
    }
    report_host(store, Host("a"), lease_seconds=60)
    steer(store, settings, "one")
    assert read_waiting(store) == {}


def test_a_host_that_reports_gets_the_engine_and_the_decision_is_logged(
    store: Store, settings: Settings, caplog: pytest.LogCaptureFixture
):
    report_host(store, Host("a"), lease_seconds=60)
    with caplog.at_level(logging.INFO):
        assert steer(store, settings, "one") == [Want(SPEC)]
    assert read_wishes(store)["m-0"].spec == SPEC
    (decision,) = decisions(store)
    assert float(decision.pop("at")) <= store.now()
    look = kept_look(store, decision.pop("snapshot"))
    assert look
    assert look_from_json(look).again().actions == (Want(SPEC),)
    assert decision == {
        "engine": "m-0",
        "action": "want",
        "model": "m",
        "host": "a",
        "was_on": "",
        "live_hosts": "a",
    }
    assert "engine=m-0 want" in caplog.text


def test_a_settled_fleet_is_left_alone(store: Store, settings: Settings):
    report_host(store, Host("a"), lease_seconds=60)
    steer(store, settings, "one")
    assert steer(store, settings, "two") == []
    assert len(decisions(store)) == 1


def test_engines_of_a_host_that_left_go_to_another(store: Store, settings: Settings):
    report_host(store, Host("a"), lease_seconds=60)
    steer(store, settings, "one")
    report_host(store, Host("b"), lease_seconds=60)
    end_host_lease(store, "a")
    assert steer(store, settings, "one") == [Want(EngineSpec("m-0", "m", "b"))]


def test_hosts_that_the_fleet_does_not_list_get_nothing(
    store: Store, settings: Settings
):
    fleet = settings.fleet.model_copy(update={"hosts": (HostSection(name="b"),)})
    report_host(store, Host("a"), lease_seconds=60)
    listed = Settings(fleet, settings.fleet_file, settings.home, "a")
    assert steer(store, listed, "one") == []


def relaunches(actions: list[Action]) -> list[tuple[str, int]]:
    return [(a.engine, a.incarnation) for a in actions if isinstance(a, Relaunch)]


def test_a_hung_engine_is_relaunched_once(store: Store, settings: Settings):
    ready(store, silent_seconds=5, incarnation=2)
    steer(store, settings, "one")
    steer(store, settings, "one")
    ready(store, silent_seconds=90, incarnation=2)
    assert relaunches(steer(store, settings, "one")) == [("m-0", 2)]
    assert relaunches(steer(store, settings, "two")) == []
    wish = read_wishes(store)["m-0"]
    assert (wish.spec, wish.relaunch, wish.abort) == (SPEC, 2, 2)
    assert HUNG.fullmatch(wish.reason)
    decision = next(each for each in decisions(store) if each["action"] == "relaunch")
    assert decision["hang_seconds"] == "60"
    assert decision["health"] == "healthy -> relaunching"
    assert decision["because"] == wish.reason
    ready(store, silent_seconds=90, incarnation=3)
    assert relaunches(steer(store, settings, "one")) == []


def test_many_at_once_relaunch_once_and_remember_it_once(
    store: Store, settings: Settings
):
    ready(store, silent_seconds=5)
    steer(store, settings, "one")
    ready(store, silent_seconds=90)
    with ThreadPoolExecutor(8) as pool:
        owners = [f"owner-{n}" for n in range(40)]
        done = list(pool.map(lambda owner: steer(store, settings, owner), owners))
    assert [each for actions in done for each in relaunches(actions)] == [("m-0", 1)]
    remembered = from_json(read_memory(store)["health"])
    assert remembered.engines["m-0"].relaunches == 1


def test_a_killed_controller_leaves_wish_and_memory_in_step(
    store: Store, settings: Settings
):
    """Controllers are killed wherever they are; the next ones go on from the store."""
    ready(store, silent_seconds=5)
    steer(store, settings, "one")
    ready(store, silent_seconds=90)
    url = settings.fleet.redis.url
    for number in range(4):
        command = [sys.executable, "-c", CONTROLLER, url, f"killed-{number}"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as controller:
            assert controller.stdout
            assert controller.stdout.readline() == b"up\n"
            looked = lambda: read_steered(store)[1] == f"killed-{number}"  # noqa: B023, E731
            eventually(looked)
            controller.kill()
        store.client.delete(store.keys.lock)
        wish = read_wishes(store)["m-0"]
        own = from_json(read_memory(store)["health"]).engines.get("m-0")
        assert wish.relaunch == (own.relaunches if own else 0)
    steer(store, settings, "last")
    assert read_wishes(store)["m-0"].relaunch == 1
    assert from_json(read_memory(store)["health"]).engines["m-0"].relaunches == 1
    done = [each for each in decisions(store) if each["action"] == "relaunch"]
    assert len(done) <= 1


def test_control_goes_on_with_what_runs_when_the_store_has_lost_its_data(
    store: Store, settings: Settings
):
    report_host(store, Host("a"), lease_seconds=60)
    ready(store, silent_seconds=1)
    report_host(store, Host("b"), lease_seconds=60)
    report_engine(store, EngineReport("m-7", "m", "b", EngineState.READY, 3))
    remove_engine(store, "m-0")
    assert steer(store, settings, "one") == [Want(EngineSpec("m-7", "m", "b"))]


def test_what_is_remembered_is_not_written_again_where_nothing_changed(
    store: Store, settings: Settings
):
    steer(store, settings, "one")
    before = read_memory(store)
    assert set(before) == {"health", "moves"}
    steer(store, settings, "one")
    assert read_memory(store)["moves"] == before["moves"]


def test_a_memory_that_nobody_can_read_is_begun_anew(store: Store, settings: Settings):
    report_host(store, Host("a"), lease_seconds=60)
    with hold_control(store, "other", 60) as token:
        write_wishes(store, token, {}, {"health": "[]", "moves": "[]"})
    assert steer(store, settings, "one") == [Want(SPEC)]
    assert from_json(read_memory(store)["health"]).judged_at


def test_memory_alone_does_not_wake_the_launchers(store: Store):
    with hold_control(store, "one", 60) as token, store.client.pubsub() as heard:
        heard.subscribe(store.keys.changed)
        assert heard.get_message(timeout=5)
        write_wishes(store, token, {}, {"health": "new"})
        write_wishes(store, token, {"m-0": Wish(SPEC)})
        rings = [heard.get_message(timeout=5), heard.get_message(timeout=0.2)]
    assert [ring and ring["data"] for ring in rings] == ["desired", None]


def test_only_the_last_snapshots_are_kept_and_fewer_of_large_ones(store: Store):
    first = keep_look(store, b"{}")
    assert kept_look(store, first) == b"{}"
    for _ in range(SNAPSHOTS_KEPT):
        keep_look(store, b"{}")
    assert kept_look(store, first) is None
    assert store.client.xlen(store.keys.snapshots) == SNAPSHOTS_KEPT
    keep_look(store, random.Random(0).randbytes(SNAPSHOT_BYTES_KEPT // 4))
    assert store.client.xlen(store.keys.snapshots) == 3


def test_what_waits_in_bundles_counts_by_rows(store: Store, settings: Settings):
    head, bundles = BundleHead("run", 1, COMPLETE, {}, "somebody"), []
    for start in range(0, 640, 64):
        rows = [b'[%d,"a"]' % number for number in range(start, start + 64)]
        numbers = tuple(range(start, start + 64))
        bundles.append(SentBundle(write_bundle(head, rows), numbers))
    with store.client.pipeline(transaction=False) as pipe:
        add_send(pipe, store, ("run", 1), ("m", 0), "somebody", bundles)
        pipe.execute()
    assert read_snapshot(store, settings, read_hosts(store)).queues == {"m": 640}


def test_while_one_controls_another_does_nothing(store: Store, settings: Settings):
    report_host(store, Host("a"), lease_seconds=60)
    with hold_control(store, "other", 60) as token:
        assert token
        assert steer(store, settings, "one") == []
    assert steer(store, settings, "one") == [Want(SPEC)]


def test_many_at_once_decide_once(store: Store, settings: Settings):
    report_host(store, Host("a"), lease_seconds=60)
    with ThreadPoolExecutor(8) as pool:
        owners = [f"owner-{n}" for n in range(40)]
        done = list(pool.map(lambda owner: steer(store, settings, owner), owners))
    assert [actions for actions in done if actions] == [[Want(SPEC)]]
    assert len(decisions(store)) == 1


def test_a_controller_that_was_superseded_writes_nothing(store: Store):
    with hold_control(store, "slow", 60) as old:
        pass
    with hold_control(store, "next", 60):
        assert not write_wishes(store, old, {"m-0": Wish(SPEC)}, {"health": "late"})
    assert read_wishes(store) == {}
    assert read_memory(store) == {}


def test_control_leaves_a_sign_that_it_looked(store: Store, settings: Settings):
    assert read_steered(store) == (0.0, "")
    steer(store, settings, "one")
    at, owner = read_steered(store)
    assert owner == "one"
    assert 0 < at <= store.now()


def test_a_host_whose_lease_ends_at_a_look_is_there_or_silent(
    store: Store, settings: Settings
):
    report_host(store, Host("a"), lease_seconds=60)
    hosts, now = read_hosts(store), store.now()
    silences = follow_silences(store, settings, hosts, now, now)
    store.client.delete(store.keys.host("a"))
    snapshot = read_snapshot(store, settings, hosts)
    assert [host.name for host in snapshot.hosts] == ["a"]
    assert silences.since == {}
    silences = follow_silences(store, settings, read_hosts(store), now, now)
    assert silences.since == {"a": now}
