"""What a real worker takes off its queues, and gives to which engine."""

import orjson

from modelserver.messaging.wire import CONTROL_QUEUE
from modelserver.store.fleet.workers import read_backlog
from modelserver.values import EngineState
from tests.engine.openai_api import answer_text
from tests.engine.process import EngineProcess
from tests.support.processes import eventually
from tests.support.shared_fleet import block_writer, is_asked, prompts, queues
from tests.support.workers import PATIENCE, FleetSite, answers


def test_a_model_without_an_engine_keeps_its_requests_queued(fleet: FleetSite):
    assert queues(fleet) == {CONTROL_QUEUE, "writer", "vectors", "other"}
    fleet.report("other-0", EngineState.STARTING, model="other")
    eventually(lambda: queues(fleet) == {CONTROL_QUEUE, "writer", "vectors"}, PATIENCE)
    texts = prompts("queued", 10)
    results = fleet.send(texts, kwargs={"model": "other"})
    assert fleet.complete.delay("meanwhile").get(PATIENCE)
    assert read_backlog(fleet.store, "other") == 10
    assert [result.state for result in results] == ["PENDING"] * 10
    fleet.report("other-0", model="other")
    assert answers(results) == [answer_text(text) for text in texts]
    assert "other" in queues(fleet)


def test_a_draining_engine_finishes_and_gets_nothing_new(fleet: FleetSite):
    engine = block_writer(fleet, limit=4)
    running = fleet.send(prompts("running", 4))
    eventually(lambda: fleet.in_flight("writer-0") == 4, PATIENCE)
    fleet.report("writer-0", EngineState.DRAINING)
    eventually(lambda: "writer" not in queues(fleet), PATIENCE)
    later = fleet.send(prompts("later", 2))
    engine.fault()
    assert len(answers(running)) == 4
    assert read_backlog(fleet.store, "writer") == 2
    fleet.report("writer-0")
    assert len(answers(later)) == 2


def test_a_stuck_model_hoards_nothing_and_starves_no_other(fleet: FleetSite):
    engine = block_writer(fleet, limit=8)
    stuck = fleet.send(prompts("stuck", 50))
    eventually(lambda: fleet.in_flight("writer-0") == 8, PATIENCE)
    texts = prompts("free", 50)
    free = fleet.send(texts, kwargs={"model": "other"})
    assert answers(free) == [answer_text(text) for text in texts]
    eventually(lambda: fleet.held() == 8, PATIENCE)
    assert read_backlog(fleet.store, "writer") == 42
    assert fleet.in_flight("writer-0") == 8
    engine.fault()
    assert len(answers(stuck)) == 50


def test_in_flight_never_exceeds_an_engines_limit(fleet: FleetSite):
    # In this order: a worker that knows of the new one knows that the other is gone.
    fleet.report("other-0", EngineState.STOPPED, model="other")
    slow = fleet.engine("slow", model="other", limit=3)
    eventually(lambda: is_asked(fleet, slow), PATIENCE)
    slow.fault(hang=True)
    results = fleet.send(prompts("limited", 45), kwargs={"model": "other"})
    eventually(lambda: fleet.in_flight("slow") == 3, PATIENCE)
    seen = {under_way(slow) for _ in range(20)}
    slow.fault()
    while not all(result.ready() for result in results):
        seen.add(under_way(slow))
    assert max(seen) == 3
    assert slow.stats()["refused"] == 0


def test_engines_share_the_load_by_their_limits(fleet: FleetSite):
    fleet.report("other-0", EngineState.STOPPED, model="other")
    both = [fleet.engine("big", model="other", limit=30)]
    both.append(fleet.engine("small", model="other", limit=10))
    eventually(lambda: all(is_asked(fleet, engine) for engine in both), PATIENCE)
    for engine in both:
        engine.fault(hang=True)
    results = fleet.send(prompts("shared", 20), kwargs={"model": "other"})
    eventually(lambda: sum(under_way(engine) for engine in both) == 20, PATIENCE)
    assert [under_way(engine) for engine in both] == [15, 5]
    for engine in both:
        engine.fault()
    assert len(answers(results)) == 20


def under_way(engine: EngineProcess) -> int:
    """The engine's requests, by its own account."""
    stats = engine.stats()
    ended = stats["completed"] + stats["refused"] + stats["aborted"]
    return int(stats["received"] - ended)


def test_what_is_no_message_harms_no_other(fleet: FleetSite):
    engine = block_writer(fleet, limit=4)
    first = fleet.send(prompts("around", 4))
    eventually(lambda: fleet.in_flight("writer-0") == 4, PATIENCE)
    queue = fleet.store.keys.queue("writer")[0]
    more = fleet.send(["one"])
    fleet.store.client.lpush(queue, "no JSON", "[]", orjson.dumps({"a": 1}).decode())
    more += fleet.send(["two"])
    engine.fault()
    assert len(answers(first + more)) == 6
    eventually(lambda: fleet.held() == 0, PATIENCE)
