"""What the store keeps of submitted runs, and who may write it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelserver.control.troubles import find_server_troubles, tell
from modelserver.fleet.file import Fleet
from modelserver.fleet.sections import RedisSection
from modelserver.operations.hosted_runs import read_runs_status
from modelserver.settings import Settings
from modelserver.store import Store, connect
from modelserver.store.fleet.alerts import open_alerts
from modelserver.store.runs.hosted import (
    ENDED_SECONDS,
    MOST_ENDED,
    HolderReport,
    HostedRun,
    RunOrder,
    RunStanding,
    RunState,
    SubmittedRun,
    add_hosted,
    end_holder,
    ended_ids,
    forget_ended,
    give_run_order,
    open_ids,
    read_hosted,
    release_hosted,
    renew_hosted,
    report_holder,
    resume_hosted,
    take_hosted,
)
from tests.support.processes import ValkeyProcess

RUN = SubmittedRun("run1", "/in.jsonl", "/out.jsonl", 10, host="h1", at=100.0)


@pytest.fixture
def settings(valkey: ValkeyProcess, tmp_path: Path) -> Settings:
    fleet = Fleet(redis=RedisSection(url=valkey.url))
    return Settings(fleet, tmp_path / "fleet.toml", tmp_path, "h1")


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    store = connect(settings)
    assert add_hosted(store, RUN)
    yield store
    store.client.close()


def kept(store: Store, run: str = RUN.id) -> HostedRun:
    (found,) = read_hosted(store, [run], whole=True)
    return found


def lapse(store: Store, run: str = RUN.id) -> None:
    """End a lease, as time does."""
    store.client.hset(store.keys.hosted_run(run), "until", 1)


def test_a_run_is_kept_once(store: Store):
    assert not add_hosted(store, RUN)
    assert open_ids(store) == [RUN.id]
    assert kept(store).run == RUN
    assert kept(store).state(store.now()) == RunState.WAITING
    assert take_hosted(store, "nobody", "h1-1") == (0, "")


def test_one_process_holds_a_run(store: Store):
    assert take_hosted(store, RUN.id, "h1-1") == (1, "")
    assert take_hosted(store, RUN.id, "h1-2") == (0, "")
    lapse(store)
    assert take_hosted(store, RUN.id, "h1-2") == (2, "h1-1")


def test_a_holder_that_lost_its_lease_writes_nothing_more(store: Store):
    take_hosted(store, RUN.id, "h1-1")
    assert renew_hosted(store, RUN.id, 1, {"progress": '{"total": 3}'}) == ""
    lapse(store)
    # Nobody else has come: it goes on.
    assert renew_hosted(store, RUN.id, 1, {}) == ""
    lapse(store)
    take_hosted(store, RUN.id, "h1-2")
    assert renew_hosted(store, RUN.id, 1, {"progress": '{"total": 4}'}) is None
    standing = RunStanding(RunState.COMPLETED, since=1.0)
    assert not release_hosted(store, kept(store), 1, standing)
    assert kept(store).progress == {"total": 3}
    assert open_ids(store) == [RUN.id]
    assert release_hosted(store, kept(store), 2, standing, {"status": "completed"})
    assert (open_ids(store), ended_ids(store)) == ([], [RUN.id])
    assert kept(store).report == {"status": "completed"}
    assert not kept(store).holder


def test_a_holder_hears_what_operators_want(store: Store):
    take_hosted(store, RUN.id, "h1-1")
    assert give_run_order(store, RUN.id, RunOrder.PAUSE)
    assert renew_hosted(store, RUN.id, 1, {}) == "pause"
    resume_hosted(store, kept(store))
    assert renew_hosted(store, RUN.id, 1, {}) == ""
    assert not give_run_order(store, "nobody", RunOrder.PAUSE)


def test_what_another_version_writes_stays(store: Store):
    key = store.keys.hosted_run(RUN.id)
    standing = {"state": "failed", "reason": "x", "since": 1.0, "colour": "red"}
    store.client.hset(key, "standing", json.dumps(standing))
    found = kept(store)
    assert found.state(store.now()) == RunState.FAILED
    resume_hosted(store, found)
    again = json.loads(str(store.client.hget(key, "standing")))
    assert (again["colour"], again["state"], again["reason"]) == ("red", "waiting", "")


def test_ended_runs_are_kept_for_a_time_and_a_number(store: Store):
    names = [f"run{number}" for number in range(MOST_ENDED + 5)]
    now = store.now()
    with store.client.pipeline() as pipe:
        for place, name in enumerate(names):
            pipe.hset(store.keys.hosted_run(name), "run", '{"id": "x"}')
            pipe.zadd(store.keys.hosted_ended, {name: now - place})
        pipe.zadd(store.keys.hosted_ended, {names[0]: now - ENDED_SECONDS - 1})
        pipe.execute()
    # One is too old, it is among those that are beyond the number.
    assert forget_ended(store, now) == 5
    assert len(ended_ids(store)) == MOST_ENDED
    assert names[0] not in ended_ids(store)
    assert not store.client.exists(store.keys.hosted_run(names[0]))
    assert forget_ended(store, now) == 0


def test_people_are_told_when_nothing_carries_runs_out(
    store: Store, settings: Settings
):
    assert read_runs_status(store).is_stuck
    tell(store, settings, find_server_troubles(store), store.now())
    (alert,) = open_alerts(store)
    assert "1 submitted run waits, and no process" in alert.text
    report_holder(store, HolderReport("h1-1", "h1", 1))
    assert read_runs_status(store).processes == ("h1-1",)
    tell(store, settings, find_server_troubles(store), store.now())
    assert open_alerts(store) == ()
    end_holder(store, "h1-1")
    assert read_runs_status(store).is_stuck
