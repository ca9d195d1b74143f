"""Workers that die, freeze or stop, and a server that goes away: what becomes of
the requests."""

import re
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from celery.result import AsyncResult

from modelserver.store.fleet.workers import read_answers, read_backlog, read_workers
from modelserver.store.messages.delivery import mark_redelivered
from tests.engine.openai_api import answer_text
from tests.support.processes import ValkeyProcess, eventually
from tests.support.workers import (
    PATIENCE,
    DurableValkey,
    FleetSite,
    Publications,
    WorkerProcess,
    answers,
    open_fleet,
)

LEASE_SECONDS = 2.0
#: What a worker says of an absence that is over, with its seconds.
BACK = re.compile(r"Redis back after ([\d.]+) s")


@contextmanager
def rules(folder: Path, url: str, **values: float) -> Iterator[FleetSite]:
    """A fleet with these rules."""
    lines = [f"{key} = {value}" for key, value in values.items()]
    with open_fleet(folder, url, "\n".join(["[rules]", *lines, ""])) as fleet:
        yield fleet


@pytest.fixture
def fleet(valkey: ValkeyProcess, tmp_path: Path) -> Iterator[FleetSite]:
    """A fleet whose workers are taken for dead after LEASE_SECONDS."""
    with rules(tmp_path, valkey.url, lease_seconds=LEASE_SECONDS) as fleet:
        yield fleet


@pytest.fixture
def publications(fleet: FleetSite) -> Iterator[Publications]:
    """Who answers what, from the beginning."""
    prefix = fleet.settings.fleet.redis.prefix
    publications = Publications(fleet.settings.results_url, prefix)
    yield publications
    publications.close()


def prompts(number: int) -> list[str]:
    return [f"request {place}" for place in range(number)]


def assert_answered_once(
    fleet: FleetSite, publications: Publications, results: Sequence[AsyncResult]
) -> None:
    """All have the right answer, and none was stored twice."""
    assert answers(results) == [answer_text(text) for text in prompts(len(results))]
    eventually(
        lambda: fleet.held() + read_backlog(fleet.store, "writer") == 0, PATIENCE
    )
    seen = publications.seen()
    assert {result.id: seen[result.id] for result in results} == dict.fromkeys(
        [result.id for result in results], 1
    )


def holds(fleet: FleetSite, worker: WorkerProcess) -> int:
    """What a worker holds, by the server's account, also when it is dead."""
    tags = fleet.store.client.hkeys(fleet.store.keys.unacked(worker.node))
    return len(tags)


# Workers that die.


def test_killed_worker_loses_no_request(fleet: FleetSite, publications: Publications):
    fleet.engine("writer-0", "--latency", "0.4", limit=16)
    killed, _ = fleet.worker(), fleet.worker()
    results = fleet.send(prompts(200))
    eventually(lambda: holds(fleet, killed) >= 8, PATIENCE)
    killed.signal(signal.SIGKILL)
    killed.wait()
    killed_at = time.monotonic()
    eventually(lambda: not holds(fleet, killed), PATIENCE)
    assert time.monotonic() - killed_at < 20
    assert_answered_once(fleet, publications, results)
    executed = fleet.engines["writer-0"].stats()["executed"]
    assert set(executed) == set(prompts(200))
    # No more were on the engine; one was at hand and had not begun.
    assert sum(executed.values()) <= 200 + 16


def test_what_the_only_worker_held_is_answered_by_its_successor(
    fleet: FleetSite, publications: Publications
):
    engine = fleet.engine("writer-0", limit=16)
    engine.fault(hang=True)
    worker = fleet.worker()
    results = fleet.send(prompts(30))
    eventually(lambda: fleet.in_flight("writer-0") == 16, PATIENCE)
    worker.signal(signal.SIGKILL)
    eventually(lambda: fleet.in_flight("writer-0") == 0, PATIENCE)
    assert fleet.held() + read_backlog(fleet.store, "writer") == 30
    engine.fault()
    fleet.worker()
    assert_answered_once(fleet, publications, results)


# Workers that are asked to stop.


def test_a_worker_that_is_asked_to_stop_finishes_what_it_has_begun(
    fleet: FleetSite, publications: Publications
):
    engine = fleet.engine("writer-0", "--hang", limit=32)
    worker = fleet.worker()
    results = fleet.send(prompts(40))
    eventually(lambda: fleet.in_flight("writer-0") == 32, PATIENCE)
    worker.signal(signal.SIGTERM)
    # What has not begun goes back first.
    eventually(lambda: read_backlog(fleet.store, "writer") == 8, PATIENCE)
    engine.fault()
    assert worker.wait() == 0
    assert fleet.held() == 0
    assert read_backlog(fleet.store, "writer") == 8
    assert sum(publications.seen().values()) == 32
    assert read_workers(fleet.store) == {}
    fleet.worker()
    assert_answered_once(fleet, publications, results)
    assert engine.stats()["executed"] == dict.fromkeys(prompts(40), 1)


def test_a_stopping_worker_gives_back_what_outlasts_its_grace(
    valkey: ValkeyProcess, tmp_path: Path
):
    with rules(tmp_path, valkey.url, grace_seconds=1) as fleet:
        engine = fleet.engine("writer-0", limit=32)
        engine.fault(hang=True)
        worker = fleet.worker()
        results = fleet.send(prompts(40))
        eventually(lambda: fleet.in_flight("writer-0") == 32, PATIENCE)
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
        assert fleet.held() == 0
        assert read_backlog(fleet.store, "writer") == 40
        eventually(lambda: fleet.in_flight("writer-0") == 0)
        engine.fault()
        fleet.worker()
        assert len(answers(results)) == 40


@pytest.mark.parametrize(
    "numbers",
    [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGQUIT)],
    ids=lambda numbers: "-".join(number.name for number in numbers),
)
def test_a_second_signal_makes_a_worker_give_back_at_once(
    fleet: FleetSite,
    publications: Publications,
    numbers: tuple[signal.Signals, signal.Signals],
):
    engine = fleet.engine("writer-0", limit=32)
    engine.fault(hang=True)
    worker = fleet.worker()
    results = fleet.send(prompts(40))
    eventually(lambda: fleet.in_flight("writer-0") == 32, PATIENCE)
    first, second = numbers
    worker.signal(first)
    eventually(lambda: "Warm shutdown" in worker.said(), PATIENCE)
    asked_at = time.monotonic()
    worker.signal(second)
    worker.wait()
    assert time.monotonic() - asked_at < fleet.settings.fleet.rules.grace_seconds / 2
    assert read_backlog(fleet.store, "writer") == 40
    assert fleet.held() == 0
    engine.fault()
    fleet.worker()
    assert_answered_once(fleet, publications, results)


# Workers that freeze.


def test_late_answers_of_a_frozen_worker_are_refused(
    fleet: FleetSite, publications: Publications
):
    engine = fleet.engine("writer-0", limit=16)
    engine.fault(hang=True)
    frozen = fleet.worker()
    results = fleet.send(prompts(16))
    eventually(lambda: fleet.in_flight("writer-0") == 16, PATIENCE)
    frozen.signal(signal.SIGSTOP)
    # The engine answers all; the frozen worker finds the answers when it wakes up.
    engine.fault()
    eventually(lambda: engine.stats()["completed"] == 16, PATIENCE)
    fleet.worker()
    assert_answered_once(fleet, publications, results)
    frozen.signal(signal.SIGCONT)
    eventually(lambda: "the lease had ended" in frozen.said(), PATIENCE)
    eventually(lambda: holds(fleet, frozen) == 0, PATIENCE)
    assert_answered_once(fleet, publications, results)
    more = fleet.send(prompts(40))
    assert_answered_once(fleet, publications, more)


def test_a_frozen_worker_that_wakes_up_in_mid_load_harms_nothing(
    fleet: FleetSite, publications: Publications
):
    fleet.engine("writer-0", "--latency", "0.3", limit=16)
    frozen = fleet.worker()
    fleet.worker()
    results = fleet.send(prompts(400))
    eventually(lambda: holds(fleet, frozen) >= 8, PATIENCE)
    frozen.signal(signal.SIGSTOP)
    eventually(lambda: not holds(fleet, frozen), PATIENCE)
    frozen.signal(signal.SIGCONT)
    assert_answered_once(fleet, publications, results)


# Deliveries.


def test_redelivery_of_an_answered_request_only_acknowledges(
    fleet: FleetSite, publications: Publications
):
    engine = fleet.engine("writer-0")
    results = fleet.send(prompts(1))
    queue = fleet.store.keys.queue("writer")[0]
    (message,) = fleet.store.client.lrange(queue, 0, -1)
    fleet.worker()
    assert_answered_once(fleet, publications, results)
    again = mark_redelivered(message.encode()).decode()
    fleet.store.client.rpush(queue, again)
    assert_answered_once(fleet, publications, results)
    assert engine.stats()["received"] == 1


def test_a_request_that_outlives_many_leases_is_executed_once(
    valkey: ValkeyProcess, tmp_path: Path
):
    with rules(tmp_path, valkey.url, lease_seconds=1) as fleet:
        engine = fleet.engine("writer-0", "--latency", "5")
        fleet.worker()
        fleet.worker()
        assert answers(fleet.send(prompts(2))) == [answer_text(p) for p in prompts(2)]
        assert engine.stats()["executed"] == dict.fromkeys(prompts(2), 1)


# A server that goes away.


def goes_on(fleet: FleetSite) -> None:
    """Wait until one more answer is stored than there were."""
    stored = read_answers(fleet.store)["stored"]
    eventually(lambda: read_answers(fleet.store)["stored"] > stored, PATIENCE)


def test_killed_server_loses_no_request(tmp_path: Path):
    folder = tmp_path / "valkey"
    folder.mkdir()
    valkey = DurableValkey(folder).start()
    with rules(tmp_path, valkey.url, lease_seconds=LEASE_SECONDS) as fleet:
        fleet.engine("writer-0", "--latency", "0.2", limit=16)
        worker = fleet.worker()
        results = fleet.send(prompts(400))
        eventually(lambda: read_answers(fleet.store).get("stored", 0) > 20, PATIENCE)
        for _ in range(2):
            before = worker.said().count("Redis away")
            valkey.stop()
            eventually(lambda n=before: worker.said().count("Redis away") > n, PATIENCE)
            valkey.start()
            goes_on(fleet)
        expected = [answer_text(text) for text in prompts(400)]
        assert answers(results) == expected
        assert read_answers(fleet.store)["stored"] == 400
        eventually(lambda: fleet.held() == 0, PATIENCE)
        assert worker.process.poll() is None
        assert answers(fleet.send(prompts(20))) == expected[:20]
    valkey.stop()


def test_after_a_long_absence_work_goes_on_at_once_and_few_lines_tell_of_it(
    tmp_path: Path,
):
    folder = tmp_path / "valkey"
    folder.mkdir()
    valkey = DurableValkey(folder).start()
    with rules(tmp_path, valkey.url, lease_seconds=LEASE_SECONDS) as fleet:
        fleet.engine("writer-0")
        worker = fleet.worker()
        assert answers(fleet.send(prompts(1))) == [answer_text(prompts(1)[0])]
        said = worker.said()
        gone = time.monotonic()
        valkey.stop()
        time.sleep(13)
        valkey.start()
        began = time.monotonic()
        assert answers(fleet.send(prompts(1))) == [answer_text(prompts(1)[0])]
        assert time.monotonic() - began < 5
        away = time.monotonic() - gone
        lines = worker.said().removeprefix(said).splitlines()
        assert len([line for line in lines if "Redis away" in line]) < 8, lines
        assert len(lines) < 40, lines
        # Some part may have found out late.
        told = lambda: max(map(float, BACK.findall(worker.said())), default=0)  # noqa: E731
        eventually(lambda: told() > 12, PATIENCE)
        assert told() < away
    valkey.stop()


def test_a_starting_worker_takes_what_waits_without_stumbling(fleet: FleetSite):
    fleet.engine("writer-0")
    names = [f"early {place}" for place in range(200)]
    results = fleet.send(names)
    worker = fleet.worker()
    assert answers(results) == [answer_text(name) for name in names]
    assert "could not be handed over" not in worker.said()
