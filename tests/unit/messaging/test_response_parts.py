"""Answers of /v1/responses that come in parts."""

from typing import Any

import pytest

from modelserver.messaging.requests import InferenceRequest
from modelserver.messaging.response_parts import ResponseAssembly
from modelserver.messaging.wire import CHAT

CREATED: dict[str, Any] = {"type": "response.created", "response": {"id": "r"}}
BEGUN: dict[str, Any] = {"type": "response.in_progress", "response": {"id": "r"}}
DELTA: dict[str, Any] = {"type": "response.output_text.delta", "delta": "a"}
USAGE = {"input_tokens": 3, "output_tokens": 2}


def end(kind: str = "completed") -> dict[str, Any]:
    return {"type": f"response.{kind}", "response": {"id": "r", "usage": USAGE}}


def test_a_greeting_is_told_with_what_comes_next():
    sofar = ResponseAssembly()
    assert [sofar.take(each, False) for each in (CREATED, BEGUN)] == [[], []]
    assert not sofar.is_begun
    assert sofar.take(DELTA, False) == [CREATED, BEGUN, DELTA]
    assert sofar.is_begun
    assert sofar.take(end(), False) == [end()]


def test_an_engine_that_dies_after_its_greeting_leaves_nothing():
    sofar = ResponseAssembly()
    sofar.take(CREATED, False)
    other = {"type": "response.created", "response": {"id": "other"}}
    assert sofar.take(other, False) == []
    assert sofar.take(DELTA, False) == [other, DELTA]


@pytest.mark.parametrize("kind", ["completed", "incomplete"])
def test_the_last_event_has_the_whole_answer(kind: str):
    sofar = ResponseAssembly()
    sofar.add(DELTA)
    assert not sofar.is_ended
    sofar.add(end(kind))
    assert sofar.is_ended
    assert sofar.own_tokens == (3, 2)
    assert sofar.body("m") == {"id": "r", "usage": USAGE, "model": "m"}


def test_no_other_engine_can_go_on():
    request = InferenceRequest(CHAT, "/v1/responses", {"input": "hi"})
    assert ResponseAssembly().find_rest(request, request.body) is None


def test_an_event_without_a_type_is_of_the_wrong_shape():
    with pytest.raises(LookupError):
        ResponseAssembly().take({"choices": []}, False)
