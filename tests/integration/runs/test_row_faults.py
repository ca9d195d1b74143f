"""Workers, engines and servers that die under rows: each is answered once."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelserver.runs.lane import Lane
from modelserver.store.fleet.workers import read_answers, read_backlog
from modelserver.values import EngineState
from tests.support.processes import ValkeyProcess, eventually
from tests.support.runs import (
    assert_answered,
    collect,
    kinds,
    make_rows,
    open_lane,
    prompt_of,
)
from tests.support.workers import (
    PATIENCE,
    DurableValkey,
    FleetSite,
    WorkerProcess,
    open_fleet,
)

RULES = "[rules]\nlease_seconds = 2\n"


@pytest.fixture
def fleet(valkey: ValkeyProcess, tmp_path: Path) -> Iterator[FleetSite]:
    """A fleet whose workers are taken for dead after two seconds."""
    with open_fleet(tmp_path, valkey.url, RULES) as fleet:
        yield fleet


def holds(fleet: FleetSite, worker: WorkerProcess) -> int:
    """Bundles that a worker holds, by the server's account, also when it is dead."""
    return len(fleet.store.client.hkeys(fleet.store.keys.unacked(worker.node)))


def assert_all_once(fleet: FleetSite, lane: Lane, number: int) -> None:
    """All rows have their answer, none has two, nothing is left anywhere."""
    assert_answered(collect(lane, number), range(number))
    eventually(
        lambda: fleet.held() + read_backlog(fleet.store, "writer") == 0, PATIENCE
    )
    assert lane.receive(0.3) == []
    assert read_answers(fleet.store)["stored"] == number


def executed(fleet: FleetSite, engine: str = "writer-0") -> int:
    """How often an engine executed rows."""
    return sum(fleet.engines[engine].stats()["executed"].values())


# Workers that die, freeze or stop.


def test_rows_of_a_killed_worker_are_answered_once(fleet: FleetSite):
    fleet.engine("writer-0", "--latency", "0.4", limit=32)
    killed, _ = fleet.worker(), fleet.worker()
    lane = open_lane(fleet)
    lane.send(make_rows(range(400)))
    eventually(lambda: read_answers(fleet.store).get("stored", 0) > 40, PATIENCE)
    eventually(lambda: holds(fleet, killed) >= 4, PATIENCE)
    killed.signal(signal.SIGKILL)
    killed.wait()
    assert_all_once(fleet, lane, 400)
    # What was on the engine ran again, and what was answered and not yet stored.
    assert executed(fleet) <= 400 + 32 + 32


def test_late_answers_of_a_frozen_worker_are_refused(fleet: FleetSite):
    engine = fleet.engine("writer-0", limit=32)
    engine.fault(hang=True)
    frozen = fleet.worker()
    lane = open_lane(fleet)
    lane.send(make_rows(range(32)))
    eventually(lambda: fleet.in_flight("writer-0") == 32, PATIENCE)
    frozen.signal(signal.SIGSTOP)
    # The engine answers all; the frozen worker finds the answers when it wakes up.
    engine.fault()
    eventually(lambda: engine.stats()["completed"] == 32, PATIENCE)
    fleet.worker()
    assert_all_once(fleet, lane, 32)
    frozen.signal(signal.SIGCONT)
    eventually(lambda: "the lease had ended" in frozen.said(), PATIENCE)
    eventually(lambda: holds(fleet, frozen) == 0, PATIENCE)
    assert lane.receive(0.5) == []
    assert read_answers(fleet.store)["stored"] == 32
    lane.send(make_rows(range(32, 100)))
    assert_answered(collect(lane, 68), range(32, 100))


def test_a_frozen_worker_that_wakes_up_in_mid_load_harms_nothing(fleet: FleetSite):
    fleet.engine("writer-0", "--latency", "0.3", limit=32)
    frozen = fleet.worker()
    fleet.worker()
    lane = open_lane(fleet)
    lane.send(make_rows(range(600)))
    eventually(lambda: holds(fleet, frozen) >= 4, PATIENCE)
    frozen.signal(signal.SIGSTOP)
    eventually(lambda: not holds(fleet, frozen), PATIENCE)
    frozen.signal(signal.SIGCONT)
    assert_all_once(fleet, lane, 600)


def test_a_worker_that_is_asked_to_stop_gives_back_what_it_has_not_begun(
    fleet: FleetSite,
):
    engine = fleet.engine("writer-0", limit=32)
    engine.fault(hang=True)
    worker = fleet.worker()
    lane = open_lane(fleet)
    lane.send(make_rows(range(60)))
    eventually(lambda: fleet.in_flight("writer-0") == 32, PATIENCE)
    worker.signal(signal.SIGTERM)
    # From here on it begins nothing.
    eventually(lambda: "Warm shutdown" in worker.said(), PATIENCE)
    eventually(lambda: read_backlog(fleet.store, "writer") == 28, PATIENCE)
    engine.fault()
    assert worker.wait() == 0
    assert fleet.held() == 0
    assert read_backlog(fleet.store, "writer") == 28
    fleet.worker()
    assert_all_once(fleet, lane, 60)
    assert executed(fleet) == 60


def test_a_worker_that_must_stop_at_once_gives_back_what_is_not_answered(
    fleet: FleetSite,
):
    engine = fleet.engine("writer-0", limit=32)
    engine.fault(hang=True)
    worker = fleet.worker()
    lane = open_lane(fleet)
    lane.send(make_rows(range(60)))
    eventually(lambda: fleet.in_flight("writer-0") == 32, PATIENCE)
    worker.signal(signal.SIGTERM)
    eventually(lambda: "Warm shutdown" in worker.said(), PATIENCE)
    worker.signal(signal.SIGQUIT)
    worker.wait()
    assert fleet.held() == 0
    assert read_backlog(fleet.store, "writer") == 60
    engine.fault()
    fleet.worker()
    assert_all_once(fleet, lane, 60)


# Rows that kill workers.


def test_only_the_rows_of_the_last_bundle_are_tried_alone(fleet: FleetSite):
    engine = fleet.engine("writer-0", limit=64)
    engine.fault(hang=True)
    lane = open_lane(fleet)
    lane.send(make_rows(range(16)))
    for _ in range(2):
        worker = fleet.worker()
        eventually(lambda: fleet.in_flight("writer-0") == 16, PATIENCE)
        worker.signal(signal.SIGKILL)
        worker.wait()
        eventually(lambda: fleet.in_flight("writer-0") == 0, PATIENCE)
    # Two workers have died with all of them: from now on one runs at a time.
    third = fleet.worker()
    eventually(lambda: fleet.in_flight("writer-0") == 1, PATIENCE)
    eventually(lambda: read_backlog(fleet.store, "writer") + fleet.held() == 16)
    third.signal(signal.SIGKILL)
    third.wait()
    engine.fault()
    fleet.worker()
    found = collect(lane, 16)
    poison = {n: kind for n, kind in kinds(found).items() if kind}
    assert list(poison.values()) == ["PoisonError"]
    (number,) = poison
    assert found[number].error
    assert "3 workers died with it" in found[number].error.message
    rest = {n: each for n, each in found.items() if n != number}
    assert_answered(rest, sorted(rest))


# Engines.


def test_rows_of_a_killed_engine_run_on_another(fleet: FleetSite):
    fleet.engine("writer-0", "--latency", "0.3", limit=32)
    fleet.engine("writer-1", "--latency", "0.3", limit=32)
    fleet.worker()
    lane = open_lane(fleet)
    lane.send(make_rows(range(300)))
    eventually(lambda: fleet.in_flight("writer-0") == 32, PATIENCE)
    fleet.engines["writer-0"].kill()
    assert_all_once(fleet, lane, 300)


def test_rows_go_back_when_no_engine_is_left(fleet: FleetSite):
    engine = fleet.engine("writer-0", limit=32)
    engine.fault(hang=True)
    worker = fleet.worker()
    lane = open_lane(fleet)
    lane.send(make_rows(range(100)))
    eventually(lambda: fleet.in_flight("writer-0") == 32, PATIENCE)
    fleet.report("writer-0", EngineState.DRAINING, limit=32)
    eventually(lambda: read_backlog(fleet.store, "writer") == 68, PATIENCE)
    engine.fault()
    found = collect(lane, 32)
    assert set(kinds(found).values()) == {""}
    eventually(lambda: holds(fleet, worker) == 0, PATIENCE)
    assert read_backlog(fleet.store, "writer") == 68
    fleet.report("writer-0", limit=32)
    rest = sorted(set(range(100)) - set(found))
    assert_answered(collect(lane, 68), rest)
    assert executed(fleet) == 100


def test_a_bundle_that_is_too_large_for_a_host_is_taken_in_parts(fleet: FleetSite):
    fleet.engine("writer-0", limit=64)
    lane = open_lane(fleet)
    lane.send(make_rows(range(64)))
    fleet.report("writer-0", limit=3)
    engine = fleet.engines["writer-0"]
    engine.fault(hang=True)
    fleet.worker()
    eventually(lambda: fleet.in_flight("writer-0") == 3, PATIENCE)
    eventually(lambda: read_backlog(fleet.store, "writer") >= 60, PATIENCE)
    engine.fault()
    assert_all_once(fleet, lane, 64)


def test_a_row_that_an_engine_refuses_fails_alone(fleet: FleetSite):
    for name in ("writer-0", "writer-1"):
        fleet.engine(name, limit=32).fault(status=400, marked=prompt_of(777))
    fleet.worker()
    lane = open_lane(fleet)
    lane.send(make_rows(range(750, 800)))
    found = collect(lane, 50)
    assert {n for n, kind in kinds(found).items() if kind} == {777}
    assert kinds(found)[777] == "RequestError"


def test_a_row_that_no_engine_can_answer_fails_alone(fleet: FleetSite):
    for name in ("writer-0", "writer-1"):
        fleet.engine(name, limit=32).fault(status=500, marked=prompt_of(777))
    fleet.worker()
    lane = open_lane(fleet)
    lane.send(make_rows(range(700, 800)))
    found = collect(lane, 100)
    assert {n for n, kind in kinds(found).items() if kind} == {777}
    assert kinds(found)[777] == "RequestError"


def test_overdue_rows_end_where_no_worker_takes_them(fleet: FleetSite):
    lane = open_lane(fleet)
    lane.send([*make_rows(range(40), deadline=1.0), *make_rows(range(40, 60))])
    found = collect(lane, 40)
    assert set(kinds(found)) == set(range(40))
    assert set(kinds(found).values()) == {"DeadlineExceededError"}
    fleet.engine("writer-0", limit=32)
    fleet.worker()
    assert_answered(collect(lane, 20), range(40, 60))


# Servers.


def test_a_killed_server_loses_no_row(tmp_path: Path):
    folder = tmp_path / "valkey"
    folder.mkdir()
    valkey = DurableValkey(folder).start()
    with open_fleet(tmp_path, valkey.url, RULES) as fleet:
        fleet.engine("writer-0", "--latency", "0.2", limit=32)
        worker = fleet.worker()
        lane = open_lane(fleet)
        lane.send(make_rows(range(600)))
        eventually(lambda: read_answers(fleet.store).get("stored", 0) > 50, PATIENCE)
        valkey.stop()
        eventually(lambda: "Redis away" in worker.said(), PATIENCE)
        valkey.start()
        assert_all_once(fleet, lane, 600)
    valkey.stop()


def test_rows_that_a_server_lost_are_sent_again(
    fleet: FleetSite, valkey: ValkeyProcess
):
    lane = open_lane(fleet)
    lane.send(make_rows(range(50)))
    fleet.engine("writer-0", limit=32)
    valkey.stop()
    valkey.start()
    fleet.report("writer-0", limit=32)
    fleet.worker()
    began = time.monotonic()
    assert_answered(collect(lane, 50), range(50))
    assert time.monotonic() - began < 20
