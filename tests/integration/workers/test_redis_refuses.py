"""A server that is full, or that refuses a result: everything else goes on."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery.exceptions import CeleryError
from celery.result import AsyncResult
from click.testing import CliRunner

from modelserver.cli.doctor import doctor
from modelserver.control.troubles import find_server_troubles, tell
from modelserver.errors import StoreFullError
from modelserver.operations.status import read_status
from modelserver.store.fleet.alerts import open_alerts
from modelserver.store.fleet.workers import read_backlog, read_workers
from tests.engine.openai_api import answer_text
from tests.support.processes import ValkeyProcess, eventually
from tests.support.workers import (
    PATIENCE,
    FleetSite,
    WorkerProcess,
    answers,
    open_fleet,
)

TASKS = "tests.support.celery_tasks"
MIB = 2**20


@pytest.fixture
def fleet(valkey: ValkeyProcess, tmp_path: Path) -> Iterator[FleetSite]:
    """A fleet on a server of its own."""
    with open_fleet(tmp_path, valkey.url, "[rules]\nlease_seconds = 2\n") as site:
        yield site


def with_tasks(fleet: FleetSite) -> WorkerProcess:
    """A worker that has the tests' own tasks too."""
    return fleet.worker("--include", TASKS)


def limit_memory(fleet: FleetSite, to: int) -> None:
    fleet.store.client.config_set("maxmemory", to)


def used(fleet: FleetSite) -> int:
    return int(fleet.store.client.info("memory")["used_memory"])


def fill(fleet: FleetSite, until: int) -> None:
    """Let others take the server's memory, up to this."""
    while (missing := until - used(fleet)) > 200_000:
        fleet.store.client.rpush("ballast", "x" * min(missing - 100_000, MIB))


# Full.


def test_a_full_server_takes_answers_and_nothing_new_until_there_is_room(
    fleet: FleetSite, monkeypatch: pytest.MonkeyPatch
):
    engine = fleet.engine("writer-0", limit=16)
    engine.fault(hang=True)
    worker = fleet.worker()
    names = [f"{place} " + "word " * 200 for place in range(200)]
    results = fleet.send(names)
    eventually(lambda: fleet.in_flight("writer-0") == 16, PATIENCE)
    fill(fleet, used(fleet) + 30 * MIB)
    limit_memory(fleet, used(fleet) - MIB)
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        fleet.store.client.execute_command("APPEND", "ballast-2", "x")
    eventually(lambda: read_status(fleet.store, fleet.settings).memory_short, PATIENCE)
    with pytest.raises(StoreFullError, match=r"memory of Redis at .* is short"):
        fleet.complete.delay("one more")

    # People are told.
    now = fleet.store.now()
    tell(fleet.store, fleet.settings, find_server_troubles(fleet.store), now)
    assert [each.about for each in open_alerts(fleet.store)] == ["redis"]
    for name, value in fleet.environment.items():
        monkeypatch.setenv(name, value)
    told = CliRunner().invoke(doctor, catch_exceptions=False).output
    assert "problem redis memory" in told
    assert "raise maxmemory" in told

    # What is accepted is answered, workers live and may be replaced.
    fleet.report("writer-0", limit=16)
    worker.signal(signal.SIGKILL)
    engine.fault()
    fleet.worker()
    assert answers(results) == [answer_text(name) for name in names]
    eventually(lambda: fleet.held() + read_backlog(fleet.store, "writer") == 0)
    assert len(read_workers(fleet.store)) == 1

    # It goes on by itself.
    fleet.store.client.delete("ballast")
    eventually(
        lambda: not read_status(fleet.store, fleet.settings).memory_short, PATIENCE
    )
    assert answers(fleet.send(["again"])) == [answer_text("again")]
    tell(fleet.store, fleet.settings, find_server_troubles(fleet.store), now + 1)
    assert open_alerts(fleet.store) == ()


def test_new_requests_are_refused_at_a_mark_below_the_limit(fleet: FleetSite):
    fleet.engine("writer-0")
    fleet.worker()
    fill(fleet, used(fleet) + 30 * MIB)
    limit_memory(fleet, int(used(fleet) / 0.95))
    eventually(lambda: read_status(fleet.store, fleet.settings).memory_short, PATIENCE)
    with pytest.raises(StoreFullError, match="MiB are used"):
        fleet.complete.delay("one more")
    fleet.store.client.set("others", "are not refused")
    limit_memory(fleet, 0)
    eventually(
        lambda: not read_status(fleet.store, fleet.settings).memory_short, PATIENCE
    )
    assert answers(fleet.send(["again"])) == [answer_text("again")]


def test_without_any_worker_a_full_server_is_named_all_the_same(fleet: FleetSite):
    fill(fleet, used(fleet) + 30 * MIB)
    limit_memory(fleet, used(fleet) - MIB)
    with pytest.raises(StoreFullError, match="memory of Redis"):
        fleet.complete.delay("one more")


# Results.


@pytest.mark.parametrize("task", ["long_text", "loop_long_text"])
def test_a_result_that_is_too_large_is_an_error_and_all_others_go_on(
    fleet: FleetSite, task: str
):
    fleet.store.client.config_set("proto-max-bulk-len", MIB)
    fleet.engine("writer-0")
    worker = with_tasks(fleet)
    too_long = fleet.app.send_task(task, (3 * MIB,), queue="control")
    names = [f"beside {place}" for place in range(40)]
    results = fleet.send(names)
    with pytest.raises(CeleryError, match=r"Redis refuses to store the answer"):
        raise_as_celery(too_long)
    assert answers(results) == [answer_text(name) for name in names]
    eventually(lambda: fleet.held() == 0, PATIENCE)
    assert worker.said().count("for good") <= 1
    assert answers(fleet.send(["after"])) == [answer_text("after")]


def raise_as_celery(result: AsyncResult) -> None:
    try:
        result.get(timeout=PATIENCE)
    except Exception as error:
        raise CeleryError(str(error)) from error


def test_a_key_of_another_type_where_a_result_goes_harms_nothing(fleet: FleetSite):
    fleet.engine("writer-0")
    results = fleet.send([f"request {place}" for place in range(20)])
    key = fleet.app.backend.backend_key(results[7].id)
    fleet.store.client.hset(key, "a", "b")
    fleet.worker()
    eventually(lambda: fleet.store.client.type(key) == "string", PATIENCE)
    assert answers(results) == [answer_text(f"request {n}") for n in range(20)]
    eventually(lambda: fleet.held() == 0, PATIENCE)


def test_a_queue_of_another_type_keeps_no_other_waiting(fleet: FleetSite):
    fleet.engine("writer-0")
    fleet.engine("vectors-0", model="vectors")
    fleet.store.client.set(fleet.store.keys.queue("writer")[0], "no list")
    worker = fleet.worker()
    assert len(fleet.embed.delay("a text").get(timeout=PATIENCE)) > 1
    refused = "nothing can be pulled from writer"
    eventually(lambda: refused in worker.said(), PATIENCE)
    fleet.store.client.delete(fleet.store.keys.queue("writer")[0])
    assert answers(fleet.send(["after"])) == [answer_text("after")]
    assert worker.said().count(refused) == 1


def test_what_was_pulled_and_could_not_be_looked_up_is_answered(fleet: FleetSite):
    fleet.engine("writer-0")
    worker, results = fleet.worker(), []
    fleet.app.control.revoke("any task: workers look for those that are revoked")

    def is_refused() -> bool:
        results.extend(fleet.send([f"request {len(results)}"]))
        return "pulling waits" in worker.said()

    fleet.store.client.acl_setuser("default", enabled=True, commands=["-zmscore"])
    eventually(is_refused, PATIENCE)
    fleet.store.client.acl_setuser("default", enabled=True, commands=["+zmscore"])
    assert answers(results) == [
        answer_text(f"request {n}") for n in range(len(results))
    ]


# Bytes.


def test_many_large_messages_are_answered(fleet: FleetSite):
    fleet.engine("writer-0", "--latency", "0.2")
    texts = [f"{place} " + "x" * 3_000_000 for place in range(16)]
    results = fleet.send(texts)
    fleet.worker()
    assert answers(results) == [answer_text(text) for text in texts]
    eventually(lambda: fleet.held() == 0, PATIENCE)


# A password that is changed under a worker.


def test_a_worker_that_redis_refuses_ends_within_its_grace_and_loses_nothing(
    valkey: ValkeyProcess, tmp_path: Path
):
    rules = "[rules]\nlease_seconds = 2\ngrace_seconds = 1\n"
    with (
        open_fleet(tmp_path, valkey.url, rules) as fleet,
        redis.Redis(port=valkey.port) as admin,
    ):
        engine = fleet.engine("writer-0")
        engine.fault(hang=True)
        worker = fleet.worker()
        results = fleet.send(["held"])
        eventually(lambda: fleet.in_flight("writer-0") == 1, PATIENCE)
        admin.config_set("requirepass", "new")
        admin.auth("new")
        admin.client_kill_filter(_type="normal", skipme=True)
        admin.client_kill_filter(_type="pubsub")
        engine.fault()
        eventually(lambda: "1 results" in worker.said())
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
        assert "Redis away at the end (it took nothing within 10 s)" in worker.said()
        admin.config_set("requirepass", "")
        fleet.report("writer-0")
        fleet.worker()
        assert answers(results) == [answer_text("held")]
