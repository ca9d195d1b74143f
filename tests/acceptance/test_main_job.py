"""The main job: requests of every kind on real engines, good ones and wrong ones."""

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult

from modelserver.errors import (
    DeadlineExceededError,
    RequestError,
    UnknownModelError,
)
from tests.acceptance.product import EMBED, EXACT, PATIENCE, Product
from tests.support.processes import eventually
from tests.support.workers import answers

pytestmark = pytest.mark.sglang

#: Seconds of work for the tiny model, so that it is under way when it is ended.
LONG = EXACT | {"max_tokens": 4000}
#: How long an abandoned request may run on, in seconds. SGLang is made to look every
#: second whether anybody still waits; by itself it looks every four.
STOP_SECONDS = 5.0
SHORT = EXACT | {"max_tokens": 8}
HELLO = [{"role": "user", "content": "hello"}]
PERSON = {
    "type": "object",
    "properties": {"adult": {"type": "boolean"}, "size": {"enum": ["S", "M", "L"]}},
    "required": ["adult", "size"],
    "additionalProperties": False,
}


def close(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two vectors are the same but for the order of their additions."""
    pairs = zip(one, other, strict=True)
    return all(math.isclose(a, b, abs_tol=1e-4) for a, b in pairs)


def schema(of: Any) -> dict[str, Any]:
    """The response format that asks for JSON of this schema."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": of}}


# Answers.


def test_a_prompt_is_completed_by_the_only_model_of_its_kind(fleet: Product) -> None:
    answer = fleet.complete.delay("Once upon a time", **SHORT).get(PATIENCE)
    named = fleet.complete.delay("Once upon a time", model="tiny-chat", **SHORT)
    assert isinstance(answer, str)
    assert answer
    assert named.get(PATIENCE) == answer


def test_a_conversation_is_answered(fleet: Product) -> None:
    answer = fleet.chat.delay(HELLO, **SHORT).get(PATIENCE)
    assert isinstance(answer, str)
    assert answer


def test_two_answers_to_one_prompt_are_a_list(fleet: Product) -> None:
    found = fleet.complete.delay("Once", n=2, max_tokens=8).get(PATIENCE)
    assert [type(text) for text in found] == [str, str]


def test_a_raw_answer_names_engine_and_seconds(fleet: Product) -> None:
    found = fleet.chat.delay(HELLO, raw=True, **SHORT).get(PATIENCE)
    assert found["engine"] == "tiny-chat-0"
    assert 0 < found["seconds"] < PATIENCE
    assert found["model"] == "tiny-chat"
    assert found["usage"]["completion_tokens"] == 8
    assert found["choices"][0]["message"]["content"]


def test_at_temperature_0_the_answer_is_the_same_in_a_crowd(fleet: Product) -> None:
    asked = EXACT | {"max_tokens": 16}
    alone = fleet.complete.delay("The same", **asked).get(PATIENCE)
    crowd = fleet.send(31, max_tokens=16)
    again = fleet.complete.delay("The same", **asked)
    assert again.get(PATIENCE) == alone
    assert len(set(answers(crowd, PATIENCE))) > 1


def test_a_json_schema_is_kept_to(fleet: Product) -> None:
    asked = fleet.chat.delay(
        HELLO,
        max_tokens=1000,
        response_format=schema(PERSON),
        # The tiny model is fond of the blanks that JSON allows anywhere.
        logit_bias=blanks(fleet),
    )
    found = json.loads(asked.get(PATIENCE))
    assert set(found) == {"adult", "size"}
    assert isinstance(found["adult"], bool)
    assert found["size"] in ("S", "M", "L")


def blanks(fleet: Product) -> dict[str, int]:
    """A bias against every token that is nothing but blanks."""
    vocabulary = json.loads(
        (fleet.settings.home / "models/tiny-chat/tokenizer.json").read_text()
    )["model"]["vocab"]
    blank = set("ĠĊĉčċ \n\t")
    return {str(n): -100 for token, n in vocabulary.items() if set(token) <= blank}


def test_a_vector_is_the_engines_own(fleet: Product) -> None:
    found = fleet.embed.delay("a sentence").get(PATIENCE)
    asked = {"model": "tiny-embed", "input": "a sentence"}
    answer = fleet.ask_engine(EMBED, "/v1/embeddings", asked)
    assert close(found, answer["data"][0]["embedding"])


def test_many_texts_give_the_vectors_of_each_in_order(fleet: Product) -> None:
    texts = [f"sentence {number}" for number in range(12)]
    together = fleet.embed.delay(texts).get(PATIENCE)
    alone = answers([fleet.embed.delay(text) for text in texts], PATIENCE)
    assert len(together) == 12
    assert all(map(close, together, alone))
    assert not close(together[0], together[1])


# From other processes.


def test_the_line_of_the_readme_prints_an_answer(fleet: Product) -> None:
    line = (
        "from tasks import complete; "
        "print(complete.delay('Once upon a time').get(timeout=60))"
    )
    done = fleet.run(sys.executable, "-W", "error", "-c", line)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


def test_a_client_needs_no_more_than_the_package(
    fleet: Product, tmp_path: Path
) -> None:
    program = (
        "from modelserver import chat, complete, embed\n"
        "print(bool(complete.delay('Once').get(timeout=60)))\n"
        "print(bool(chat([{'role': 'user', 'content': 'hi'}])))\n"
        "print(len(embed.delay(['a', 'b']).get(timeout=60)))\n"
    )
    done = fleet.run(sys.executable, "-W", "error", "-c", program, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["True", "True", "2"]


# Wrong requests.

Send = Callable[[Product], AsyncResult]

FOUND_BY_THE_CLIENT: dict[str, tuple[Send, type[RequestError], str]] = {
    "an unknown model": (
        lambda fleet: fleet.complete.delay("x", model="tiny-chatt"),
        UnknownModelError,
        'the fleet has no model "tiny-chatt"; did you mean "tiny-chat"?',
    ),
    "a model of the other kind": (
        lambda fleet: fleet.complete.delay("x", model="tiny-embed"),
        UnknownModelError,
        '"tiny-embed" is for embedding, not for completion; completion models: tiny',
    ),
    "an empty prompt": (
        lambda fleet: fleet.complete.delay(""),
        RequestError,
        "prompt is empty; an engine needs at least one character",
    ),
    "a prompt of the wrong type": (
        lambda fleet: fleet.complete.delay(5),
        RequestError,
        "prompt must be text or a list of token ids, not int",
    ),
    "several prompts": (
        lambda fleet: fleet.complete.delay(["x", "y"]),
        RequestError,
        "prompt must be one text, not a list; send one request for each prompt",
    ),
    "a message without a role": (
        lambda fleet: fleet.chat.delay([{"content": "hi"}]),
        RequestError,
        'messages[0] has no role; say "system", "user" or "assistant"',
    ),
    "no text to embed": (
        lambda fleet: fleet.embed.delay([]),
        RequestError,
        "input is an empty list; there is nothing to embed",
    ),
    "what JSON cannot hold": (
        lambda fleet: fleet.complete.delay("x", stop=object()),
        RequestError,
        "stop is of type object, which cannot be sent as JSON; pass text, numbers",
    ),
    "a response format that is no object": (
        lambda fleet: fleet.chat.delay(HELLO, response_format="json"),
        RequestError,
        'response_format must be an object like {"type": "json_object"}, not str',
    ),
}

REFUSED_BY_THE_ENGINE: dict[str, tuple[Send, str]] = {
    "more tokens than the context": (
        lambda fleet: fleet.complete.delay("word " * 5000),
        "is longer than the model's context length (4096 tokens).",
    ),
    "a longer text than the context": (
        lambda fleet: fleet.embed.delay("word " * 5000),
        "is longer than the model's context length (4096 tokens).",
    ),
    "a value out of its range": (
        lambda fleet: fleet.complete.delay("x", top_p=0),
        "top_p must be in (0, 1], got 0.0.",
    ),
    "a value of the wrong type": (
        lambda fleet: fleet.complete.delay("x", presence_penalty="much"),
        "tiny-chat refused the request: presence_penalty: Input should be a valid num",
    ),
    "a role that does not exist": (
        lambda fleet: fleet.chat.delay([{"role": "wizard", "content": "hi"}]),
        "messages[0]: Value error, 'role' must be one of 'system', 'assistant'",
    ),
    "a response format that does not exist": (
        lambda fleet: fleet.chat.delay(HELLO, response_format={"type": "poem"}),
        "response_format: Input should be 'text', 'json_object' or 'json_schema'",
    ),
    "a schema that is none": (
        lambda fleet: fleet.chat.delay(HELLO, response_format=schema({"type": "x"})),
        'Failed to compile json grammar: Unsupported type "x"',
    ),
    "fewer dimensions than the model has": (
        lambda fleet: fleet.embed.delay("x", dimensions=8),
        "Model 'tiny-embed' does not support",
    ),
}


@pytest.mark.parametrize("name", FOUND_BY_THE_CLIENT)
def test_what_is_wrong_is_said_before_it_is_sent(fleet: Product, name: str) -> None:
    send, error, text = FOUND_BY_THE_CLIENT[name]
    with pytest.raises(error) as raised:
        send(fleet)
    assert text in str(raised.value)


@pytest.mark.parametrize("name", REFUSED_BY_THE_ENGINE)
def test_what_the_engine_refuses_is_told_in_its_words(
    fleet: Product, name: str
) -> None:
    send, text = REFUSED_BY_THE_ENGINE[name]
    with pytest.raises(RequestError) as raised:
        send(fleet).get(PATIENCE)
    message = str(raised.value)
    assert text in message
    # The server's folders and its program's lines are none of a client's business.
    assert not [mark for mark in ("/", ".py", ".cc", "'input'") if mark in message]


def test_wrong_requests_harm_no_other(fleet: Product) -> None:
    before = [fleet.engine(), fleet.engine(EMBED)]
    good, bad = fleet.send(16, max_tokens=32), []
    for send, _ in REFUSED_BY_THE_ENGINE.values():
        bad.append(send(fleet))
        good.append(fleet.embed.delay("good"))
    good += fleet.send(16, max_tokens=32)
    assert all(answers(good, PATIENCE))
    assert all(type(result.get(PATIENCE, propagate=False)) for result in bad)
    assert {result.state for result in bad} == {"FAILURE"}
    for engine in before:
        assert fleet.is_ready(engine.incarnation, engine.id)


# Celery's own means.


def test_a_chain_passes_one_answer_to_the_next(fleet: Product) -> None:
    steps = chain(
        fleet.complete.s("Once", **SHORT),
        fleet.complete.s(**SHORT),
        fleet.embed.s(),
    )
    found = steps.delay().get(PATIENCE)
    first = fleet.complete("Once", **SHORT)
    assert close(found, fleet.embed(fleet.complete(first, **SHORT)))


def test_a_group_gives_its_answers_in_order(fleet: Product) -> None:
    prompts = [f"part {number}" for number in range(20)]
    parts = group(fleet.complete.s(prompt, **SHORT) for prompt in prompts)
    alone = [fleet.complete.delay(prompt, **SHORT) for prompt in prompts]
    assert parts.delay().get(PATIENCE) == answers(alone, PATIENCE)


def test_a_chords_body_gets_all_parts_in_order(fleet: Product) -> None:
    prompts = [f"part {number}" for number in range(5)]
    parts = [fleet.complete.s(prompt, **SHORT) for prompt in prompts]
    found = chord(parts, fleet.embed.s()).delay().get(PATIENCE)
    texts = [fleet.complete.delay(prompt, **SHORT) for prompt in prompts]
    expected = [fleet.embed.delay(text) for text in answers(texts, PATIENCE)]
    assert all(map(close, found, answers(expected, PATIENCE)))


def test_what_is_urgent_goes_before_what_waits(fleet: Product) -> None:
    limit = fleet.engine().limit
    first = fleet.send(limit, max_tokens=200)
    waiting = fleet.send(2 * limit, max_tokens=8, name="waits", priority=9)
    (urgent,) = fleet.send(1, max_tokens=8, name="urgent", priority=0)
    answers([*first, *waiting, urgent], PATIENCE)
    earlier = [each for each in waiting if each.date_done < urgent.date_done]
    # What was pulled together with it may be done before it.
    assert len(earlier) < limit


def test_a_countdown_is_waited_for(fleet: Product) -> None:
    began = time.monotonic()
    result = fleet.complete.apply_async(("later",), SHORT, countdown=1.5)
    assert result.get(PATIENCE)
    assert time.monotonic() - began >= 1.5


def test_what_expires_in_the_queue_is_not_executed(fleet: Product) -> None:
    busy = fleet.send(fleet.engine().limit, max_tokens=200)
    eventually(lambda: fleet.running(), PATIENCE)
    late = fleet.complete.apply_async(("late",), SHORT, expires=0.1)
    with pytest.raises(TaskRevokedError):
        late.get(PATIENCE)
    assert all(answers(busy, PATIENCE))


def test_a_revoked_request_stops_on_the_engine(fleet: Product) -> None:
    before = fleet.aborted()
    result = fleet.complete.delay("for ever", **LONG)
    eventually(lambda: fleet.running() == 1, PATIENCE)
    fleet.app.control.revoke(result.id, terminate=True)
    with pytest.raises(TaskRevokedError):
        result.get(PATIENCE)
    eventually(lambda: fleet.running() == 0, STOP_SECONDS)
    eventually(lambda: fleet.aborted() == before + 1, STOP_SECONDS)


def test_a_deadline_stops_a_request_on_the_engine(fleet: Product) -> None:
    before = fleet.aborted()
    result = fleet.complete.delay("for ever", deadline=2.0, **LONG)
    with pytest.raises(DeadlineExceededError, match="before the request's deadline"):
        result.get(PATIENCE)
    eventually(lambda: fleet.running() == 0, STOP_SECONDS)
    eventually(lambda: fleet.aborted() == before + 1, STOP_SECONDS)
