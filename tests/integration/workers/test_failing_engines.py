"""Real workers, asking engines that fail on demand."""

from typing import Any

import pytest

from modelserver.errors import RequestError
from modelserver.store.fleet.measurements import read_counters
from modelserver.store.fleet.workers import read_backlog
from modelserver.values import EngineState, Outcome
from tests.engine.openai_api import answer_text
from tests.support.processes import eventually
from tests.support.shared_fleet import block_writer, is_asked, prompts, queues
from tests.support.workers import PATIENCE, FleetSite, answers


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500},
        {"status": 503, "retry_after": 1},
        {"half_json": True},
        {"no_choices": True},
        {"wrong_json": True},
    ],
    ids=str,
)
def test_engine_that_fails_at_times_loses_no_request(
    fleet: FleetSite, fault: dict[str, Any]
):
    engine = fleet.engines["writer-0"]
    engine.fault(rate=0.3, **fault)
    texts = prompts("fault", 30)
    received = engine.stats()["received"]
    assert answers(fleet.send(texts)) == [answer_text(text) for text in texts]
    assert engine.stats()["received"] > received + 30


@pytest.mark.parametrize(
    "fault",
    [{"reset": True}, {"status": 500}, {"die": True, "after": 3}],
    ids=str,
)
def test_engine_that_breaks_loses_no_request_while_another_works(
    fleet: FleetSite, fault: dict[str, Any]
):
    broken = fleet.engine("broken", "--latency", "0.05", limit=64)
    broken.fault(**fault)
    eventually(lambda: broken_tried(fleet), PATIENCE)
    texts = prompts("broken", 40)
    assert answers(fleet.send(texts)) == [answer_text(text) for text in texts]
    eventually(lambda: read_counters(fleet.store, "broken")[Outcome.ENGINE_FAULT])


def broken_tried(fleet: FleetSite) -> bool:
    """Whether the worker knows the broken engine, and it has failed a request."""
    answers(fleet.send(prompts("try", 4)))
    return bool(read_counters(fleet.store, "broken").get(Outcome.ENGINE_FAULT))


def test_poison_on_a_lone_engine_takes_few_attempts_though_nobody_else_asks(
    fleet: FleetSite,
):
    # In this order: a worker that knows of the new one knows that the other is gone.
    fleet.report("other-0", EngineState.STOPPED, model="other")
    lone = fleet.engine("lone", model="other")
    eventually(lambda: is_asked(fleet, lone), PATIENCE)
    lone.fault(status=500, marked="arsenic")
    texts = [f"arsenic {number}" for number in range(4)]
    for result in fleet.send(texts, kwargs={"model": "other"}):
        with pytest.raises(RequestError, match="cannot answer this request"):
            result.get(PATIENCE)
    counts = read_counters(fleet.store, "lone")
    tries = counts[Outcome.ENGINE_FAULT] + counts[Outcome.REPEATED]
    assert tries <= 6 * len(texts)


def test_a_lone_engine_that_resets_is_left_alone_and_then_asked_again(
    fleet: FleetSite,
):
    block_writer(fleet, limit=4)
    fleet.report("other-0", EngineState.STOPPED, model="other")
    lone = fleet.engine("resets", model="other")
    eventually(lambda: is_asked(fleet, lone), PATIENCE)
    lone.fault(reset=True)
    result = fleet.complete.delay("patience", model="other")
    eventually(lambda: "other" not in queues(fleet), PATIENCE)
    eventually(lambda: read_backlog(fleet.store, "other") == 1, PATIENCE)
    lone.fault()
    assert result.get(PATIENCE) == answer_text("patience")
