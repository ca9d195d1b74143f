"""What workers do with engines that control holds, and whose requests it calls off."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelserver.store.fleet.measurements import read_counters
from modelserver.store.fleet.workers import read_backlog, read_loads
from tests.engine.openai_api import answer_text
from tests.support.processes import ValkeyProcess, eventually
from tests.support.workers import (
    PATIENCE,
    FleetSite,
    Publications,
    answers,
    open_fleet,
)

HOLD = "draining: slow: takes 3.1x"


@pytest.fixture
def fleet(valkey: ValkeyProcess, tmp_path: Path) -> Iterator[FleetSite]:
    with open_fleet(tmp_path, valkey.url) as fleet:
        yield fleet


def executed(fleet: FleetSite, engine: str) -> set[str]:
    return set(fleet.engines[engine].stats()["executed"])


def expected(texts: list[str]) -> list[str]:
    return [answer_text(text) for text in texts]


def test_a_held_engine_gets_nothing_new_and_finishes_what_it_has(fleet: FleetSite):
    writer = fleet.engine("writer-0", "--hang")
    fleet.worker()
    old, new = ["old 1", "old 2"], [f"new {place}" for place in range(30)]
    before = fleet.send(old)
    eventually(lambda: fleet.in_flight("writer-0") == 2, PATIENCE)
    # In this order: a worker that knows of the other one knows of the hold.
    fleet.report("writer-0", hold=HOLD)
    fleet.engine("writer-1")
    eventually(lambda: "writer-1" in read_loads(fleet.store), PATIENCE)
    after = fleet.send(new)
    assert answers(after) == expected(new)
    writer.fault()
    assert answers(before) == expected(old)
    assert executed(fleet, "writer-0") == set(old)


def test_requests_of_a_held_lone_engine_wait_and_go_on(fleet: FleetSite):
    fleet.engine("writer-0")
    fleet.report("writer-0", hold=HOLD)
    fleet.worker()
    results = fleet.send(["one", "two"])
    eventually(lambda: read_backlog(fleet.store, "writer") == 2, PATIENCE)
    fleet.report("writer-0")
    assert answers(results) == expected(["one", "two"])


def test_requests_that_are_called_off_run_elsewhere_and_are_answered_once(
    fleet: FleetSite,
):
    fleet.engine("writer-0", "--hang")
    fleet.worker()
    published = Publications(fleet.settings.redis_url, fleet.store.keys.prefix)
    texts = [f"request {place}" for place in range(20)]
    results = fleet.send(texts)
    eventually(lambda: fleet.in_flight("writer-0") == 20, PATIENCE)
    fleet.engine("writer-1")
    fleet.report("writer-0", hold="draining: hung", abort=1)
    assert answers(results) == expected(texts)
    eventually(lambda: fleet.in_flight("writer-0") == 0, PATIENCE)
    assert fleet.engines["writer-0"].stats()["aborted"] == 20
    counted = read_counters(fleet.store, "writer-0")
    assert (counted["cancelled"], counted.get("engine-fault", 0)) == (20, 0)
    assert published.seen() == dict.fromkeys((each.id for each in results), 1)
    published.close()


def test_requests_that_are_called_off_a_lone_engine_go_back_to_their_queue(
    fleet: FleetSite,
):
    fleet.engine("writer-0", "--hang")
    fleet.worker()
    results = fleet.send(["one", "two", "three"])
    eventually(lambda: fleet.in_flight("writer-0") == 3, PATIENCE)
    fleet.report("writer-0", hold="draining: hung", abort=1)
    eventually(lambda: read_backlog(fleet.store, "writer") == 3, PATIENCE)
    eventually(lambda: fleet.in_flight("writer-0") == 0, PATIENCE)
    fleet.engines["writer-0"].fault()
    fleet.report("writer-0")
    assert answers(results) == expected(["one", "two", "three"])


def test_texts_that_are_called_off_together_are_embedded_elsewhere(fleet: FleetSite):
    fleet.engine("vectors-0", "--hang", model="vectors")
    fleet.worker()
    results = [fleet.embed.delay(f"text {place}") for place in range(40)]
    eventually(lambda: fleet.in_flight("vectors-0") > 0, PATIENCE)
    fleet.engine("vectors-1", model="vectors")
    fleet.report("vectors-0", model="vectors", hold="draining: hung", abort=1)
    assert all(len(vector) == 8 for vector in answers(results))
    eventually(lambda: fleet.in_flight("vectors-0") == 0, PATIENCE)
