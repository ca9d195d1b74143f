"""Messages that kill workers: counted, set aside, and blamed on nobody else."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelserver.errors import PoisonError
from modelserver.store.batch import REAPS
from modelserver.store.messages.dead_letters import dead_letters, resubmit
from modelserver.store.messages.reaps import MOST_REAPS
from tests.engine.openai_api import answer_text
from tests.support.processes import ValkeyProcess, eventually
from tests.support.workers import PATIENCE, FleetSite, answers, open_fleet

TASKS = "tests.support.celery_tasks"


@pytest.fixture
def fleet(valkey: ValkeyProcess, tmp_path: Path) -> Iterator[FleetSite]:
    """A fleet whose workers are taken for dead after a second."""
    with open_fleet(tmp_path, valkey.url, "[rules]\nlease_seconds = 1\n") as site:
        yield site


def test_a_message_that_kills_workers_is_set_aside_and_its_neighbours_are_answered(
    fleet: FleetSite,
):
    fleet.engine("writer-0", "--latency", "0.2", limit=16)
    names = [f"n{place}" for place in range(100)]
    killer = fleet.app.send_task("die", queue="control")
    results = fleet.send(names)
    for number in range(1, MOST_REAPS + 1):
        worker = fleet.worker("--include", TASKS, wait=False)
        assert worker.wait() == -signal.SIGKILL, number
    last = fleet.worker("--include", TASKS)
    with pytest.raises(PoisonError, match="3 workers died with it"):
        killer.get(timeout=PATIENCE)
    assert answers(results) == [answer_text(name) for name in names]
    (letter,) = dead_letters(fleet.store)
    assert (letter.task, letter.queue) == (killer.id, "control")
    assert last.process.poll() is None
    eventually(lambda: fleet.held() == 0, PATIENCE)
    # As new once somebody says so.
    assert resubmit(fleet.store, letter, fleet.app.backend.backend_key)
    assert last.wait() == -signal.SIGKILL


def test_workers_that_are_killed_twice_make_nobody_wait_for_long(fleet: FleetSite):
    engine = fleet.engine("writer-0", limit=16)
    engine.fault(hang=True)
    names = [f"n{place}" for place in range(16)]
    results = fleet.send(names)
    for _ in range(2):
        worker = fleet.worker()
        eventually(lambda: fleet.in_flight("writer-0") == 16, PATIENCE)
        worker.signal(signal.SIGKILL)
        worker.wait()
        eventually(lambda: fleet.in_flight("writer-0") == 0, PATIENCE)
    engine.fault()
    fleet.worker()
    assert answers(results) == [answer_text(name) for name in names]
    assert dead_letters(fleet.store) == ()


def test_the_submitter_of_a_message_may_have_any_name(fleet: FleetSite):
    engine = fleet.engine("writer-0", limit=16)
    engine.fault(hang=True)
    odd = ["team\nA", "\x06\x16from:x", "a" * 10_000, "组", '{"a": 1}', "\n{"]
    results = [
        fleet.complete.apply_async((f"{place} {n}",), headers={"submitter": name})
        for place in range(2)
        for n, name in enumerate(odd)
    ]
    worker = fleet.worker()
    eventually(lambda: fleet.in_flight("writer-0") == len(results), PATIENCE)
    worker.signal(signal.SIGKILL)
    worker.wait()
    engine.fault()
    fleet.worker()
    expected = [answer_text(f"{p} {n}") for p in range(2) for n in range(len(odd))]
    assert answers(results) == expected
    eventually(lambda: fleet.held() == 0, PATIENCE)


def test_reaps_are_counted_in_the_message(fleet: FleetSite):
    fleet.engine("writer-0").fault(hang=True)
    (result,) = fleet.send(["counted"])
    for _ in range(2):
        worker = fleet.worker()
        eventually(lambda: fleet.in_flight("writer-0") == 1, PATIENCE)
        worker.signal(signal.SIGKILL)
        worker.wait()
        eventually(lambda: fleet.in_flight("writer-0") == 0, PATIENCE)
    fleet.worker()
    eventually(lambda: fleet.in_flight("writer-0") == 1, PATIENCE)
    counts = [message["headers"].get(REAPS) for message in held_messages(fleet)]
    assert counts == [2]
    fleet.engines["writer-0"].fault()
    assert result.get(timeout=PATIENCE) == answer_text("counted")


def held_messages(fleet: FleetSite) -> list[dict[str, Any]]:
    """What all workers hold."""
    client = fleet.store.client
    keys = client.scan_iter(fleet.store.keys.unacked("*"))
    values = [value for key in keys for value in client.hvals(key)]
    return [json.loads(value.partition("\n")[2]) for value in values]
