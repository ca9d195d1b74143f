"""What callers get from a real worker: answers, or errors of their own."""

from pathlib import Path

import pytest
from celery import chain, chord, group

from modelserver.errors import (
    RequestError,
    UnknownModelError,
)
from modelserver.messaging.wire import STEER
from modelserver.store.fleet.control import read_steered
from modelserver.store.fleet.measurements import read_counters, read_samples
from modelserver.values import Outcome
from tests.engine.openai_api import answer_text, embedding
from tests.support.processes import ValkeyProcess, eventually
from tests.support.shared_fleet import prompts
from tests.support.workers import PATIENCE, FleetSite, answers, open_fleet


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
    def well() -> int:
        return read_counters(fleet.store, "other-0").get(Outcome.OK, 0)

    before = well()
    answers(fleet.send(prompts("sample", 5), kwargs={"model": "other"}))
    eventually(lambda: well() == before + 5)
    sample = read_samples(fleet.store, "other-0")[0]
    assert (sample.incarnation, sample.outcome) == (1, Outcome.OK)
    assert (sample.prompt_tokens, sample.completion_tokens) == (2, 256)
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
