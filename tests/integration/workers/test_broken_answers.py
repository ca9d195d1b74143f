"""Real workers, and engines whose answers are empty, broken off, or none at all."""

import time
from typing import Any

import pytest

from modelserver.errors import RequestError
from modelserver.store.fleet.measurements import read_counters
from modelserver.values import EngineState, Outcome
from tests.engine.faults import TOOL_CALL
from tests.engine.openai_api import answer_text, embedding
from tests.engine.process import EngineProcess
from tests.support.processes import eventually
from tests.support.shared_fleet import is_asked, prompts
from tests.support.workers import PATIENCE, FleetSite, answers

HELLO = [{"role": "user", "content": "hello"}]
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {}}}]


def counted(fleet: FleetSite, model: str) -> dict[str, int]:
    """The counters of a model's engines together."""
    total: dict[str, int] = {}
    for name in fleet.engines:
        if name.startswith(model):
            for key, number in read_counters(fleet.store, name).items():
                total[key] = total.get(key, 0) + number
    return total


def failed(fleet: FleetSite, model: str = "writer") -> tuple[int, int]:
    """Requests that counted against a model's engines, and other failed tries."""
    found = counted(fleet, model)
    return found.get(Outcome.ENGINE_FAULT, 0), found.get(Outcome.REPEATED, 0)


def second_writer(fleet: FleetSite) -> EngineProcess:
    """Another engine of the writer that the worker knows."""
    engine = fleet.engine("writer-1")

    def is_known() -> bool:
        answers(fleet.send(prompts("hello", 4)))
        return bool(engine.stats()["received"])

    eventually(is_known, PATIENCE)
    return engine


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("shape", ["empty", "null", "reasoning", "reasoning_content"])
def test_an_answer_without_text_is_one(fleet: FleetSite, shape: str, raw: bool):
    engine, before = fleet.engines["writer-0"], failed(fleet)
    engine.fault(shape=shape)
    received = engine.stats()["received"]
    found = fleet.chat.delay(HELLO, raw=raw).get(PATIENCE)
    message = found["choices"][0]["message"] if raw else {"content": found}
    assert not message["content"]
    assert message.get(shape, "Let me think") == "Let me think"
    if shape == "empty":
        assert fleet.complete.delay("p").get(PATIENCE) == ""
    assert engine.stats()["received"] == received + 1 + (shape == "empty")
    assert failed(fleet) == before


@pytest.mark.parametrize("raw", [False, True])
def test_a_generation_that_was_broken_off_runs_again(fleet: FleetSite, raw: bool):
    broken = second_writer(fleet)
    broken.fault(shape="abort")
    texts = prompts("abort", 12)
    found = answers(fleet.send(texts, kwargs={"raw": raw}))
    wanted = [answer_text(text) for text in texts]
    assert [each["choices"][0]["text"] if raw else each for each in found] == wanted
    assert broken.stats()["completed"] > 0


def test_with_tools_the_answer_is_the_message(fleet: FleetSite):
    fleet.engines["writer-0"].fault(shape="tool")
    found = fleet.chat.delay(HELLO, tools=TOOLS).get(PATIENCE)
    assert found == {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}
    assert fleet.chat.delay(HELLO).get(PATIENCE) == ""
    fleet.engines["writer-0"].fault()
    found = fleet.chat.delay(HELLO, tools=TOOLS).get(PATIENCE)
    assert (found["content"], found["tool_calls"]) == (answer_text("hello"), [])


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"status": 500}, "status 500: an injected fault"),
        ({"half_json": True}, "a body that is not JSON"),
        ({"wrong_json": True}, "a body of the wrong shape"),
        ({"no_choices": True}, "0 answers for 1"),
    ],
    ids=str,
)
def test_a_request_that_no_engine_can_answer_ends_alone(
    fleet: FleetSite, fault: dict[str, Any], words: str
):
    engines = fleet.engines["writer-0"], second_writer(fleet)
    for engine in engines:
        engine.fault(marked="poison", **fault)
    before, began = failed(fleet), time.monotonic()
    texts = prompts("good", 100)
    results = fleet.send([*texts[:50], "poison", *texts[50:]])
    bad = results.pop(50)
    with pytest.raises(RequestError, match=words):
        bad.get(PATIENCE)
    assert answers(results) == [answer_text(text) for text in texts]
    assert time.monotonic() - began < 20
    eventually(lambda: failed(fleet)[1] > before[1], PATIENCE)
    after = failed(fleet)
    assert after[0] == before[0] + 1, "it counts once"
    assert after[1] - before[1] < 5


def test_a_lone_engine_that_answers_others_is_not_to_blame(fleet: FleetSite):
    fleet.engines["writer-0"].fault(marked="poison", status=500)
    before = failed(fleet)
    results = fleet.send(["poison"])
    while not results[0].ready():
        assert answers(fleet.send(["good"])) == [answer_text("good")]
    with pytest.raises(RequestError, match="status 500: an injected fault"):
        results[0].get(PATIENCE)
    eventually(lambda: failed(fleet)[0] == before[0] + 1, PATIENCE)


def test_a_lone_engine_that_fails_at_all_is_asked_until_it_is_well(fleet: FleetSite):
    # In this order: a worker that knows of the new one knows that the other is gone.
    fleet.report("other-0", EngineState.STOPPED, model="other")
    lone, texts = fleet.engine("lone", model="other"), prompts("patience", 3)
    eventually(lambda: is_asked(fleet, lone), PATIENCE)
    lone.fault(status=500)
    received = lone.stats()["received"]
    results = fleet.send(texts, kwargs={"model": "other"})
    eventually(lambda: lone.stats()["received"] > received + 9, PATIENCE)
    lone.fault()
    assert answers(results) == [answer_text(text) for text in texts]

    def told() -> bool:
        counts = read_counters(fleet.store, "lone")
        assert counts.get(Outcome.ENGINE_FAULT) == len(texts)
        return bool(counts.get(Outcome.REPEATED))

    eventually(told, PATIENCE)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ("nan", r"NaN|other than numbers"),
        ("zeros", "all zeros"),
        ("no-vector", "no vector"),
        ("odd-base64", "31 bytes"),
        ("short", "7 numbers, unlike others"),
    ],
)
def test_a_bad_vector_fails_its_own_text_alone(
    fleet: FleetSite, shape: str, why: str, raw: bool
):
    engine, texts = fleet.engines["vectors-0"], prompts("text", 20)
    answers([fleet.embed.delay(text) for text in texts])
    received = engine.stats()["received"]
    engine.fault(shape=shape, marked="poison")
    good = [fleet.embed.delay(text, raw=raw) for text in texts]
    bad = fleet.embed.delay("poison", raw=raw)
    listed = fleet.embed.delay(["a", "poison 1", "b", "poison 2"], raw=raw)
    with pytest.raises(RequestError, match=rf"text 0 \(.*({why})"):
        bad.get(PATIENCE)
    with pytest.raises(RequestError, match=rf"text 1 \(.*({why}).* text 3 \("):
        listed.get(PATIENCE)
    vectors = [each["data"][0]["embedding"] if raw else each for each in answers(good)]
    assert vectors == [embedding(text) for text in texts]
    assert engine.stats()["received"] - received <= len(texts) + 5


def test_a_text_that_the_engine_cannot_embed_ends_alone(fleet: FleetSite):
    fleet.engines["vectors-0"].fault(status=500, marked="poison")
    before, texts = failed(fleet, "vectors"), prompts("text", 40)
    results = [fleet.embed.delay(text) for text in [*texts[:20], "poison", *texts[20:]]]
    bad = results.pop(20)
    while not bad.ready():
        fleet.embed.delay("another").get(PATIENCE)
    with pytest.raises(RequestError, match="status 500: an injected fault"):
        bad.get(PATIENCE)
    assert answers(results) == [embedding(text) for text in texts]
    eventually(lambda: failed(fleet, "vectors")[0] == before[0] + 1, PATIENCE)


def test_answers_that_are_cut_off_are_counted(fleet: FleetSite):
    before = counted(fleet, "writer").get("cut_off", 0)
    answers(fleet.send(prompts("long", 3)))
    eventually(lambda: counted(fleet, "writer")["cut_off"] == before + 3, PATIENCE)
    ok = counted(fleet, "writer")[Outcome.OK]
    fleet.engines["writer-0"].fault(shape="empty")
    answers(fleet.send(prompts("short", 3)))
    eventually(lambda: counted(fleet, "writer")[Outcome.OK] >= ok + 3, PATIENCE)
    assert counted(fleet, "writer")["cut_off"] == before + 3
    fleet.embed.delay("a text").get(PATIENCE)
    assert "cut_off" not in counted(fleet, "vectors")
