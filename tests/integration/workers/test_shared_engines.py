"""Several workers of one host: what they have in flight on its engines together."""

import json
import signal
from collections.abc import Iterator

import pytest

from modelserver.operations.status import read_status
from modelserver.store.fleet.workers import read_workers
from tests.support.processes import ValkeyProcess, eventually
from tests.support.workers import (
    HOST,
    OTHER_MODEL,
    PATIENCE,
    FleetSite,
    WorkerProcess,
    answers,
    open_fleet,
)

#: What the writer's engine takes at once: it does not divide by two.
LIMIT = 9


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetSite]:
    """One host; an engine that takes nine, and one that takes one.

    No lease ends by itself while a test runs.
    """
    folder = tmp_path_factory.mktemp("fleet")
    valkey = ValkeyProcess(folder).start()
    rules = "\n[rules]\nlease_seconds = 300\n"
    with open_fleet(folder, valkey.url, OTHER_MODEL + rules) as site:
        site.engine("writer-0", "--latency", "0.1", limit=LIMIT)
        site.engine("other-0", "--latency", "0.03", model="other", limit=1)
        yield site
    valkey.stop()


@pytest.fixture
def fleet(site: FleetSite) -> FleetSite:
    """The module's fleet, whose two workers live and have their shares."""
    while len(living(site)) < 2:
        site.worker()
    eventually(lambda: shares(site, "writer-0") == [4, 5], PATIENCE)
    return site


def living(fleet: FleetSite) -> list[WorkerProcess]:
    """The workers that run."""
    return [each for each in fleet.workers if each.process.poll() is None]


def shares(fleet: FleetSite, engine: str) -> list[int]:
    """What each worker may have in flight on an engine, by the store's account."""
    entries = fleet.store.client.hvals(fleet.store.keys.shares(HOST))
    found = [json.loads(entry)["engines"].get(engine, [0]) for entry in entries]
    return sorted(values[0] for values in found)


def test_together_they_keep_to_the_limits_while_workers_die_and_come(fleet: FleetSite):
    writer, other = fleet.engines["writer-0"], fleet.engines["other-0"]
    before = writer.stats()["completed"]
    results = fleet.send([f"w{n}" for n in range(1_200)])
    results += fleet.send([f"o{n}" for n in range(150)], kwargs={"model": "other"})
    for done in range(100, 1_200, 100):
        eventually(lambda n=done: writer.stats()["completed"] - before >= n, PATIENCE)
        if done == 300:
            living(fleet)[0].signal(signal.SIGKILL)
        if done == 600:
            fleet.worker(wait=False)
        # As a server does that comes back without its data.
        fleet.store.client.delete(fleet.store.keys.shares(HOST))
    eventually(lambda: shares(fleet, "writer-0") == [4, 5], PATIENCE)
    assert len(answers(results, within=90)) == 1_350
    assert writer.stats()["most_in_flight"] == LIMIT
    assert other.stats()["most_in_flight"] == 1


def running(stats: dict[str, int]) -> int:
    """Requests that an engine has, by its own account."""
    ended = stats["completed"] + stats["refused"] + stats["aborted"]
    return stats["received"] - ended


def test_what_is_told_of_an_engine_is_of_all_workers(fleet: FleetSite):
    writer = fleet.engines["writer-0"]
    writer.fault(hang=True)
    results = fleet.send([f"w{n}" for n in range(2 * LIMIT)])
    eventually(lambda: running(writer.stats()) == LIMIT, PATIENCE)

    def told() -> bool:
        status = read_status(fleet.store, fleet.settings)
        engine = next(each for each in status.engines if each.id == "writer-0")
        each = [worker.inflight for worker in status.workers]
        return engine.inflight == engine.limit == LIMIT and sorted(each) == [4, 5]

    eventually(told, PATIENCE)
    writer.fault()
    assert len(answers(results)) == 2 * LIMIT


def test_a_killed_workers_share_and_requests_are_the_others_at_once(fleet: FleetSite):
    writer = fleet.engines["writer-0"]
    writer.fault(hang=True)
    results = fleet.send([f"w{n}" for n in range(LIMIT)])
    eventually(lambda: running(writer.stats()) == LIMIT, PATIENCE)
    killed = living(fleet)[0]
    killed.signal(signal.SIGKILL)
    killed.wait()
    eventually(lambda: shares(fleet, "writer-0") == [LIMIT], PATIENCE)
    eventually(lambda: running(writer.stats()) == LIMIT, PATIENCE)
    (left,) = eventually(
        lambda: found if len(found := read_workers(fleet.store)) == 1 else None
    )
    assert left.startswith(f"{HOST}-")
    writer.fault()
    assert len(answers(results)) == LIMIT


def test_an_idle_share_is_lent_and_comes_back(fleet: FleetSite):
    """One of them does no longer consume, as remote control can say."""
    idle, writer = living(fleet)[0], fleet.engines["writer-0"]
    fleet.app.control.cancel_consumer("writer", destination=[idle.name], reply=True)
    # There is more to do until it is lent, however long that takes.
    writer.fault(hang=True)
    results = fleet.send([f"w{n}" for n in range(300)])
    eventually(lambda: shares(fleet, "writer-0") == [1, 8], PATIENCE)
    writer.fault()
    fleet.app.control.add_consumer("writer", destination=[idle.name], reply=True)
    eventually(lambda: shares(fleet, "writer-0") == [4, 5], PATIENCE)
    assert len(answers(results)) == 300
    assert writer.stats()["most_in_flight"] <= LIMIT


def test_a_worker_that_ends_leaves_its_share_as_it_finishes(fleet: FleetSite):
    ended = living(fleet)[0]
    ended.signal(signal.SIGTERM)
    assert ended.wait() == 0
    eventually(lambda: shares(fleet, "writer-0") == [LIMIT], PATIENCE)
    assert shares(fleet, "other-0") == [1]
