"""Answers that come in parts: the whole that they make, and how another goes on."""

from typing import Any

import pytest

from modelserver.messaging.requests import InferenceRequest
from modelserver.messaging.stream_parts import (
    Assembly,
    assemble,
    continued,
    says_broken_off,
    without_role,
)
from modelserver.messaging.wire import CHAT, COMPLETE

HI = [{"role": "user", "content": "hi"}]


def texts(*parts: str, **last: Any) -> list[dict[str, Any]]:
    found = [{"choices": [{"index": 0, "text": part}]} for part in parts]
    found[-1]["choices"][0] |= last
    return found


def deltas(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"choices": [{"index": 0, "delta": part}]} for part in parts]


def completion(**body: Any) -> InferenceRequest:
    return InferenceRequest(COMPLETE, "", {"prompt": "go", **body})


def test_texts_make_a_whole():
    whole = assemble(texts("a", "b", finish_reason="stop"), is_chat=False).body("m")
    assert whole["choices"] == [{"index": 0, "text": "ab", "finish_reason": "stop"}]


def test_calls_of_tools_make_a_whole():
    call = {"index": 0, "id": "1", "type": "function"}
    parts = deltas(
        {"role": "assistant", "content": None},
        {"tool_calls": [{**call, "function": {"name": "look", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]},
        {"tool_calls": [{"index": 1, "id": "2", "function": {"name": "wait"}}]},
    )
    [choice] = assemble(parts, is_chat=True).body("m")["choices"]
    assert choice["message"]["tool_calls"] == [
        {
            "id": "1",
            "type": "function",
            "function": {"name": "look", "arguments": '{"a": 1}'},
        },
        {"id": "2", "type": "function", "function": {"name": "wait", "arguments": ""}},
    ]


def test_likelihoods_and_choices_make_a_whole():
    parts = [
        {"choices": [{"index": i, "text": "a", "logprobs": {"tokens": ["a"]}}]}
        for i in (1, 0, 1)
    ]
    found = assemble(parts, is_chat=False).body("m")["choices"]
    assert [len(each["logprobs"]["tokens"]) for each in found] == [1, 2]


@pytest.mark.parametrize(
    ("body", "goes"),
    [
        ({}, True),
        ({"max_tokens": 5, "temperature": 1}, True),
        ({"n": 2}, False),
        ({"logprobs": 1}, False),
        ({"regex": "a"}, False),
        ({"echo": True}, False),
    ],
)
def test_what_can_go_on_from_its_text(body: dict[str, Any], goes: bool):
    sofar = assemble(texts("a"), is_chat=False)
    assert sofar.is_begun
    assert sofar.is_from_text(completion(**body)) is goes


def test_thoughts_and_calls_cannot_go_on_from_a_text():
    request = InferenceRequest(CHAT, "", {"messages": HI})
    for delta in ({"reasoning_content": "hm"}, {"reasoning": "hm"}):
        assert not assemble(deltas(delta), is_chat=True).is_from_text(request)
    assert assemble(deltas({"content": "a"}), is_chat=True).is_from_text(request)


def test_token_ids_cannot_go_on_from_a_text():
    sofar = assemble(texts("a"), is_chat=False)
    assert not sofar.is_from_text(InferenceRequest(COMPLETE, "", {"prompt": [1]}))


def test_a_greeting_is_nothing_to_go_on_from():
    greeting = deltas({"role": "assistant", "content": ""})
    assert not assemble(greeting, is_chat=True).is_begun


def test_another_engine_gets_the_text_and_what_is_left_of_the_tokens():
    sofar = assemble(texts("a", "b", "c"), is_chat=False)
    sofar.go_on()
    request = completion(max_tokens=10)
    assert continued(request, request.body, sofar) == {
        "prompt": "goabc",
        "max_tokens": 7,
    }
    for part in texts("d", "e"):
        sofar.add(part)
    sofar.go_on()
    assert continued(request, request.body, sofar)["max_tokens"] == 5
    sofar.add({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 5}})
    assert sofar.usage == {
        "prompt_tokens": 4,
        "completion_tokens": 10,
        "total_tokens": 14,
    }
    # What the last engine did: it read the text of the others.
    assert sofar.own_tokens == (9, 5)


def test_a_chat_goes_on_with_its_last_message():
    request = InferenceRequest(CHAT, "", {"messages": HI})
    sofar = assemble(deltas({"content": "a"}), is_chat=True)
    sent = continued(request, request.body, sofar)
    assert sent["messages"] == [*HI, {"role": "assistant", "content": "a"}]
    assert sent["continue_final_message"] is True
    assert sent["add_generation_prompt"] is False


def test_the_tokens_that_an_engine_counted_go_before_our_own_count():
    sofar = Assembly(is_chat=False)
    sofar.add({**texts("ab")[0], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
    sofar.go_on()
    assert sofar.tokens_before == 4


def test_a_second_greeting_is_left_out():
    [greeting, said] = deltas(
        {"role": "assistant", "content": ""}, {"role": "assistant", "content": "a"}
    )
    assert without_role(greeting) is None
    found = without_role(said)
    assert found is not None
    assert found["choices"][0]["delta"] == {"content": "a"}


def test_a_generation_that_broke_off_is_known():
    assert says_broken_off({"choices": [{"finish_reason": "abort"}]}) == "abort"
    assert not says_broken_off({"choices": [{"finish_reason": "length"}]})
