"""What follows a task, when the worker that ran it freezes or dies."""

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import chain
from celery.states import FAILURE, SUCCESS

from modelserver.errors import RequestError
from modelserver.messaging.wire import result_key
from modelserver.store.fleet.workers import read_backlog
from modelserver.store.messages.delivery import mark_redelivered
from tests.engine.openai_api import answer_text
from tests.support.processes import ValkeyProcess, eventually
from tests.support.workers import PATIENCE, FleetSite, open_fleet

#: A lease that ends soon, so that tests are quick.
QUICK = "[rules]\nlease_seconds = 2\n"


@pytest.fixture
def fleet(tmp_path: Path, valkey: ValkeyProcess) -> Iterator[FleetSite]:
    with open_fleet(tmp_path, valkey.url, QUICK) as site:
        yield site


def mine(fleet: FleetSite) -> Any:
    """A task of the user's own, in a queue that no worker here reads."""
    return fleet.app.signature("mine.save", queue="mine")


def test_steps_and_links_of_a_frozen_worker_run_once(fleet: FleetSite):
    writer = fleet.engine("writer-0", limit=16)
    writer.fault(hang=True)
    frozen = fleet.worker()
    chains = [
        chain(fleet.complete.s(f"p{i}").on_error(mine(fleet)), fleet.complete.s())
        for i in range(8)
    ]
    results = [each.apply_async() for each in chains]
    linked = [
        fleet.complete.apply_async((f"l{i}",), link=mine(fleet)) for i in range(8)
    ]
    eventually(lambda: fleet.in_flight("writer-0") == 16, PATIENCE)
    frozen.signal(signal.SIGSTOP)
    writer.fault()
    eventually(lambda: writer.stats()["completed"] == 16, PATIENCE)
    fleet.worker()
    for result in results + linked:
        assert result.get(PATIENCE)
    eventually(lambda: read_backlog(fleet.store, "mine") == 8, PATIENCE)
    frozen.signal(signal.SIGCONT)
    eventually(lambda: "the lease had ended" in frozen.said(), PATIENCE)
    eventually(lambda: fleet.held() == 0, PATIENCE)
    executed = Counter(writer.stats()["executed"])
    assert [executed[answer_text(f"p{i}")] for i in range(8)] == [1] * 8
    assert read_backlog(fleet.store, "mine") == 8
    assert not list(fleet.store.client.scan_iter(fleet.store.keys.published("*")))


def redeliver(fleet: FleetSite, task: str, value: Any, state: str) -> None:
    """As if a worker had died between storing an answer and what follows it."""
    queue = fleet.store.keys.queue("writer")[0]
    (message,) = fleet.store.client.lrange(queue, 0, -1)
    fleet.store.client.delete(queue)
    backend = fleet.app.backend
    result = backend.prepare_exception(value) if state == FAILURE else value
    meta = backend._get_result_meta(result, state, traceback=None, request=None)
    stored = backend.encode({**meta, "task_id": task})
    fleet.store.client.set(result_key(fleet.settings, task), stored)
    again = mark_redelivered(message.encode()).decode()
    fleet.store.client.rpush(queue, again)


def test_a_chain_goes_on_from_the_stored_answer_of_a_worker_that_died(
    fleet: FleetSite,
):
    engine = fleet.engine("writer-0")
    last = chain(fleet.complete.s("first"), fleet.complete.s()).apply_async()
    redeliver(fleet, last.parent.id, "stored", SUCCESS)
    fleet.worker()
    assert last.get(PATIENCE) == answer_text("stored")
    assert engine.stats()["executed"] == {"stored": 1}


def test_a_failure_stored_by_a_worker_that_died_reaches_all_that_follows(
    fleet: FleetSite,
):
    engine = fleet.engine("writer-0")
    steps = chain(fleet.complete.s("first").on_error(mine(fleet)), fleet.complete.s())
    last = steps.apply_async()
    redeliver(fleet, last.parent.id, RequestError("stored"), FAILURE)
    fleet.worker()
    with pytest.raises(RequestError, match="stored"):
        last.get(PATIENCE)
    eventually(lambda: read_backlog(fleet.store, "mine") == 1, PATIENCE)
    eventually(lambda: fleet.held() == 0, PATIENCE)
    assert engine.stats()["executed"] == {}
