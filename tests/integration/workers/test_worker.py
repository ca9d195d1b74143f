"""Real workers on a real server, asking engines that fail on demand."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from celery import chain, chord, group
from celery.exceptions import (
    SoftTimeLimitExceeded,
    TaskRevokedError,
    TimeLimitExceeded,
)
from celery.result import AsyncResult

from modelserver.errors import (
    DeadlineExceededError,
    RequestError,
    UnknownModelError,
)
from modelserver.messaging.wire import CONTROL_QUEUE, STEER
from modelserver.store.control import read_steered
from modelserver.store.engines import remove_engine
from modelserver.store.measurements import read_counters, read_samples
from modelserver.store.workers import read_backlog, read_backlogs
from modelserver.values import EngineState, Outcome
from tests.engine.openai_api import answer_text, embedding
from tests.engine.process import EngineProcess
from tests.support.processes import ValkeyProcess, eventually
from tests.support.workers import (
    OTHER_MODEL,
    PATIENCE,
    FleetSite,
    answers,
    open_fleet,
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetSite]:
    """One worker and an engine for each of three models, for the whole module."""
    folder = tmp_path_factory.mktemp("fleet")
    valkey = ValkeyProcess(folder).start()
    with open_fleet(folder, valkey.url, OTHER_MODEL) as site:
        for name, model in MODEL_OF.items():
            site.engine(name, model=model)
        site.worker()
        yield site
    valkey.stop()


#: The engines that all tests of this module share.
MODEL_OF = {"writer-0": "writer", "vectors-0": "vectors", "other-0": "other"}


@pytest.fixture
def fleet(site: FleetSite) -> Iterator[FleetSite]:
    """The module's fleet: its engines healthy and ready, nothing queued or held."""
    yield site
    for name, model in MODEL_OF.items():
        site.engines[name].fault()
        site.report(name, model=model)
    for name in set(site.engines) - set(MODEL_OF):
        remove_engine(site.store, name)
        site.engines.pop(name).kill()
    eventually(lambda: not waiting(site), PATIENCE)


def waiting(site: FleetSite) -> int:
    """Requests that are queued, held or parked."""
    queues = [CONTROL_QUEUE, *MODEL_OF.values()]
    return sum(read_backlogs(site.store, queues).values()) + site.held() + site.parked()


def prompts(name: str, number: int) -> list[str]:
    return [f"{name} {place}" for place in range(number)]


def blocked(fleet: FleetSite, limit: int) -> EngineProcess:
    """The writer's engine, hanging, with a limit that the worker knows."""
    engine = fleet.engines["writer-0"]
    engine.fault(hang=True)
    fleet.report("writer-0", EngineState.STARTING)
    eventually(lambda: "writer" not in queues(fleet), PATIENCE)
    fleet.report("writer-0", limit=limit)
    eventually(lambda: "writer" in queues(fleet), PATIENCE)
    return engine


def queues(fleet: FleetSite) -> set[str]:
    """The queues that the worker consumes from, as ``celery inspect`` tells."""
    name = fleet.workers[0].name
    inspect = fleet.app.control.inspect(destination=[name], timeout=10)
    return {queue["name"] for queue in inspect.active_queues()[name]}


# Answers.


def test_a_prompt_is_completed(fleet: FleetSite):
    assert fleet.complete.delay("Once upon").get(PATIENCE) == answer_text("Once upon")


def test_the_models_sampling_and_then_the_callers_reach_the_engine(fleet: FleetSite):
    by_model = fleet.complete.delay("a", raw=True).get(PATIENCE)
    by_caller = fleet.complete.delay("a", raw=True, max_tokens=3).get(PATIENCE)
    assert by_model["usage"]["completion_tokens"] == 8
    assert by_caller["usage"]["completion_tokens"] == 3
    assert by_caller["model"] == "writer"
    assert by_caller["engine"] == "writer-0"
    assert by_caller["seconds"] > 0


def test_several_answers_to_one_prompt_are_a_list(fleet: FleetSite):
    assert fleet.complete.delay("a", n=3).get(PATIENCE) == [answer_text("a")] * 3


def test_a_conversation_is_answered(fleet: FleetSite):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello?"},
    ]
    expected = answer_text("Be brief.\nHello?")
    assert fleet.chat.delay(messages).get(PATIENCE) == expected
    assert fleet.chat.delay(messages, model="other").get(PATIENCE) == expected


def test_one_text_becomes_a_vector_and_many_become_vectors_in_order(fleet: FleetSite):
    assert fleet.embed.delay("one").get(PATIENCE) == embedding("one")
    texts = prompts("text", 20)
    expected = [embedding(text) for text in texts]
    assert fleet.embed.delay(texts).get(PATIENCE) == expected
    assert fleet.embed.delay(texts, encoding_format="base64").get(PATIENCE) == expected


def test_a_plain_call_in_a_client_waits_for_the_answer(fleet: FleetSite):
    assert fleet.complete("call") == answer_text("call")


def test_a_chain_passes_one_answer_to_the_next(fleet: FleetSite):
    steps = chain(fleet.complete.s("a"), fleet.complete.s(), fleet.embed.s())
    expected = embedding(answer_text(answer_text("a")))
    assert steps.apply_async().get(PATIENCE) == expected


def test_a_group_gives_its_answers_in_order(fleet: FleetSite):
    texts = prompts("group", 30)
    result = group(fleet.complete.s(text) for text in texts).apply_async()
    assert result.get(PATIENCE) == [answer_text(text) for text in texts]


def test_a_chords_body_gets_all_parts_in_order(fleet: FleetSite):
    texts = prompts("chord", 8)
    result = chord([fleet.complete.s(text) for text in texts], fleet.embed.s())()
    assert result.get(PATIENCE) == [embedding(answer_text(text)) for text in texts]


def test_a_chord_of_vectors_reaches_its_body_as_lists(fleet: FleetSite):
    parts = [fleet.embed.s("one"), fleet.embed.s("two")]
    result = chord(parts, fleet.app.signature("celery.accumulate"))()
    assert result.get(PATIENCE) == [[embedding("one"), embedding("two")]]


def test_every_request_leaves_a_sample(fleet: FleetSite):
    before = read_counters(fleet.store, "other-0").get(Outcome.OK, 0)
    answers(fleet.send(prompts("sample", 5), kwargs={"model": "other"}))
    eventually(lambda: read_counters(fleet.store, "other-0")[Outcome.OK] == before + 5)
    sample = read_samples(fleet.store, "other-0")[0]
    assert (sample.incarnation, sample.outcome) == (1, Outcome.OK)
    assert (sample.prompt_tokens, sample.completion_tokens) == (2, 16)
    assert abs(sample.ended_at - fleet.store.now()) < PATIENCE


def test_neither_prompts_nor_answers_get_into_the_log(fleet: FleetSite):
    result = fleet.complete.delay("a-secret-of-mine")
    assert "a-secret-of-mine" in result.get(PATIENCE)
    with pytest.raises(RequestError):
        fleet.complete.delay("\ta-secret", n=1, rid=7).get(PATIENCE)
    assert "a-secret" not in fleet.workers[0].said()


def test_a_task_that_is_no_request_runs_in_the_pool(fleet: FleetSite):
    before, _ = read_steered(fleet.store)
    fleet.app.send_task(STEER)
    eventually(lambda: read_steered(fleet.store)[0] > before, PATIENCE)


# When, and in which order.


def test_a_request_with_a_countdown_is_parked_and_not_held(fleet: FleetSite):
    began = time.monotonic()
    result = fleet.complete.apply_async(("later",), countdown=2)
    eventually(lambda: fleet.parked() == 1, within=1.5)
    assert fleet.held() == 0
    assert read_backlog(fleet.store, "writer") == 0
    assert result.get(PATIENCE) == answer_text("later")
    assert time.monotonic() - began >= 2


def test_priority_0_goes_before_9(fleet: FleetSite):
    engine = blocked(fleet, limit=1)
    first = fleet.complete.delay("in the way")
    eventually(lambda: fleet.in_flight("writer-0") == 1, PATIENCE)
    late = fleet.send(["nine", "nine too"], priority=9)
    middle = fleet.send(["four"], priority=4)
    soon = fleet.send(["zero"], priority=0)
    engine.fault()
    answers([first, *late, *middle, *soon])
    order = [text for text in engine.stats()["executed"] if text in PRIORITY_ORDER]
    assert order == PRIORITY_ORDER


PRIORITY_ORDER = ["in the way", "zero", "four", "nine", "nine too"]


def test_an_expired_request_is_not_executed(fleet: FleetSite):
    engine = blocked(fleet, limit=1)
    first = fleet.complete.delay("long before")
    eventually(lambda: fleet.in_flight("writer-0") == 1, PATIENCE)
    began = time.monotonic()
    result = fleet.complete.apply_async(("expired",), expires=0.3)
    eventually(lambda: time.monotonic() > began + 0.4)
    engine.fault()
    with pytest.raises(TaskRevokedError, match="expired"):
        result.get(PATIENCE)
    assert first.get(PATIENCE)
    assert "expired" not in engine.stats()["executed"]


# Ending a request early.


def revoke(fleet: FleetSite, result: AsyncResult, **options: Any) -> None:
    name = fleet.workers[0].name
    fleet.app.control.revoke(
        result.id, destination=[name], reply=True, timeout=10, limit=1, **options
    )


def test_a_request_revoked_before_its_start_is_not_executed(fleet: FleetSite):
    engine = blocked(fleet, limit=1)
    first = fleet.complete.delay("before the revoked")
    eventually(lambda: fleet.in_flight("writer-0") == 1, PATIENCE)
    result = fleet.complete.delay("revoked")
    revoke(fleet, result)
    engine.fault()
    with pytest.raises(TaskRevokedError, match="revoked"):
        result.get(PATIENCE)
    assert first.get(PATIENCE)
    assert "revoked" not in engine.stats()["executed"]


def test_revoking_a_running_request_ends_it_on_the_engine(fleet: FleetSite):
    engine = blocked(fleet, limit=4)
    result = fleet.complete.delay("to be ended")
    eventually(lambda: fleet.in_flight("writer-0") == 1, PATIENCE)
    revoke(fleet, result, terminate=True)
    with pytest.raises(TaskRevokedError, match="terminated"):
        result.get(PATIENCE)
    eventually(lambda: fleet.in_flight("writer-0") == 0, PATIENCE)
    engine.fault()
    eventually(lambda: fleet.held() == 0, PATIENCE)
    assert "to be ended" not in engine.stats()["executed"]


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        ({"soft_time_limit": 0.3}, SoftTimeLimitExceeded),
        ({"time_limit": 0.3}, TimeLimitExceeded),
    ],
)
def test_a_time_limit_ends_a_request_on_the_engine(
    fleet: FleetSite, limits: dict[str, float], error: type[Exception]
):
    engine = blocked(fleet, limit=4)
    result = fleet.complete.apply_async(("limited",), **limits)
    with pytest.raises(error):
        result.get(PATIENCE)
    eventually(lambda: fleet.in_flight("writer-0") == 0, PATIENCE)
    eventually(lambda: fleet.held() == 0, PATIENCE)
    assert "limited" not in engine.stats()["executed"]


def test_a_deadline_ends_a_request_in_flight(fleet: FleetSite):
    blocked(fleet, limit=4)
    result = fleet.complete.delay("due", deadline=0.5)
    with pytest.raises(DeadlineExceededError, match="no answer from writer before"):
        result.get(PATIENCE)
    eventually(lambda: fleet.in_flight("writer-0") == 0, PATIENCE)


def test_a_deadline_ends_the_retries_of_a_failing_engine(fleet: FleetSite):
    fleet.engines["writer-0"].fault(status=500)
    result = fleet.complete.delay("due", deadline=0.5)
    with pytest.raises(DeadlineExceededError):
        result.get(PATIENCE)


def test_a_deadline_that_passed_in_the_queue_is_not_executed(fleet: FleetSite):
    engine = blocked(fleet, limit=1)
    first = fleet.complete.delay("before the late")
    eventually(lambda: fleet.in_flight("writer-0") == 1, PATIENCE)
    began = time.monotonic()
    result = fleet.complete.delay("too late", deadline=0.3)
    eventually(lambda: time.monotonic() > began + 0.4)
    engine.fault()
    with pytest.raises(DeadlineExceededError):
        result.get(PATIENCE)
    assert first.get(PATIENCE)
    assert "too late" not in engine.stats()["executed"]


# Errors.


def test_what_the_engine_refuses_is_asked_once_and_tells_why(fleet: FleetSite):
    engine = fleet.engines["writer-0"]
    before = engine.stats()["received"]
    result = fleet.complete.delay(" ")
    with pytest.raises(RequestError, match=r"writer refused .* must not be empty"):
        result.get(PATIENCE)
    assert engine.stats()["received"] == before + 1


def test_a_client_finds_an_unknown_model_before_it_sends(fleet: FleetSite):
    with pytest.raises(UnknownModelError, match='did you mean "writer"'):
        fleet.complete.delay("a", model="writter")
    with pytest.raises(UnknownModelError, match="is for embedding"):
        fleet.complete.delay("a", model="vectors")


def test_a_wrong_step_of_a_chain_fails_with_its_own_error(fleet: FleetSite):
    steps = chain(fleet.complete.s("a"), fleet.complete.s(temperature=-1))
    result = steps.apply_async()
    with pytest.raises(RequestError, match="temperature must be a number from 0"):
        result.get(PATIENCE)
    assert result.parent.get(PATIENCE) == answer_text("a")


def test_a_chains_step_to_an_unknown_model_fails_the_chain(fleet: FleetSite):
    steps = chain(fleet.complete.s("a"), fleet.complete.s(model="nobody"))
    with pytest.raises(UnknownModelError, match='no model "nobody"'):
        steps.apply_async().get(PATIENCE)


def test_a_chains_step_with_a_wrong_deadline_fails_with_its_own_error(
    fleet: FleetSite,
):
    steps = chain(fleet.complete.s("a"), fleet.complete.s(deadline="soon"))
    result = steps.apply_async()
    with pytest.raises(RequestError, match="deadline must be a number"):
        result.get(PATIENCE)
    assert result.parent.get(PATIENCE) == answer_text("a")


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


def test_a_lone_engine_that_resets_is_left_alone_and_then_asked_again(
    fleet: FleetSite,
):
    blocked(fleet, limit=4)
    lone = fleet.engine("lone", model="other")
    fleet.report("other-0", EngineState.STOPPED, model="other")
    eventually(lambda: lone_asked(fleet, lone), PATIENCE)
    lone.fault(reset=True)
    result = fleet.complete.delay("patience", model="other")
    eventually(lambda: "other" not in queues(fleet), PATIENCE)
    eventually(lambda: read_backlog(fleet.store, "other") == 1, PATIENCE)
    lone.fault()
    assert result.get(PATIENCE) == answer_text("patience")


def lone_asked(fleet: FleetSite, lone: EngineProcess) -> bool:
    """Whether the worker asks this engine of the other model."""
    answers(fleet.send(prompts("hello", 4), kwargs={"model": "other"}))
    return bool(lone.stats()["received"])


# Queues and room.


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
    engine = blocked(fleet, limit=4)
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
    engine = blocked(fleet, limit=8)
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
    slow = fleet.engine("slow", "--latency", "0.1", model="other", limit=3)
    fleet.report("other-0", EngineState.STOPPED, model="other")
    eventually(lambda: lone_asked(fleet, slow), PATIENCE)
    results = fleet.send(prompts("limited", 45), kwargs={"model": "other"})
    seen = set()
    while not all(result.ready() for result in results):
        stats = slow.stats()
        ended = stats["completed"] + stats["refused"] + stats["aborted"]
        seen.add(stats["received"] - ended)
    assert max(seen) == 3
    assert slow.stats()["refused"] == 0


def test_engines_share_the_load_by_their_limits(fleet: FleetSite):
    fleet.engine("big", "--latency", "0.2", model="other", limit=30)
    fleet.engine("small", "--latency", "0.2", model="other", limit=10)
    fleet.report("other-0", EngineState.STOPPED, model="other")
    eventually(lambda: lone_asked(fleet, fleet.engines["small"]), PATIENCE)
    results = fleet.send(prompts("shared", 200), kwargs={"model": "other"})
    seen = set()
    while not all(result.ready() for result in results):
        seen.add((fleet.in_flight("big") > 10, fleet.in_flight("small") > 10))
    assert (True, False) in seen
    assert not {(True, True), (False, True)} & seen


def test_what_is_no_message_harms_no_other(fleet: FleetSite):
    engine = blocked(fleet, limit=4)
    first = fleet.send(prompts("around", 4))
    eventually(lambda: fleet.in_flight("writer-0") == 4, PATIENCE)
    queue = fleet.store.keys.queue("writer")[0]
    more = fleet.send(["one"])
    fleet.store.client.lpush(queue, "no JSON", "[]", orjson.dumps({"a": 1}).decode())
    more += fleet.send(["two"])
    engine.fault()
    assert len(answers(first + more)) == 6
    eventually(lambda: fleet.held() == 0, PATIENCE)


# A fleet that differs.


def test_results_may_live_on_a_server_of_their_own(
    valkey: ValkeyProcess, tmp_path: Path
):
    folder = tmp_path / "results"
    folder.mkdir()
    apart = ValkeyProcess(folder).start()
    extra = f'[redis]\nresults_url = "{apart.url}"\n'
    with open_fleet(tmp_path, valkey.url, extra) as fleet:
        fleet.engine("writer-0")
        fleet.engine("vectors-0", model="vectors")
        fleet.worker()
        texts = prompts("apart", 20)
        assert answers(fleet.send(texts)) == [answer_text(text) for text in texts]
        parts = [fleet.complete.s("a"), fleet.complete.s("b")]
        vectors = chord(parts, fleet.embed.s())().get(PATIENCE)
        assert vectors == [embedding(answer_text(text)) for text in "ab"]
        eventually(lambda: fleet.held() == 0, PATIENCE)
        pattern = "ms:celery-task-meta-*"
        assert list(fleet.store.client.scan_iter(pattern)) == []
    apart.stop()
