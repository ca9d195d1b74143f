"""What an engine's response means, and when it is none."""

import base64
import struct
from typing import Any

import pytest

from modelserver.engine_protocol import EngineFault
from modelserver.messaging.answers import (
    answer,
    is_cut_off,
    tokens,
)
from modelserver.messaging.requests import build
from modelserver.messaging.wire import CHAT, COMPLETE, EMBED, Vector

HELLO = [{"role": "user", "content": "hi"}]
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]


def completion(*texts: Any, **usage: Any) -> dict[str, Any]:
    choices = [{"index": place, "text": text} for place, text in enumerate(texts)]
    return {"choices": choices, "usage": usage}


def vectors(*values: Any) -> dict[str, Any]:
    entries = [
        {"index": place, "embedding": value} for place, value in enumerate(values)
    ]
    return {"data": entries}


def test_one_answer_is_a_text_and_several_are_a_list_in_the_engines_order():
    response = completion("a", "b")
    response["choices"].reverse()
    assert answer(build(COMPLETE, ("p",), {"n": 2}), response) == ["a", "b"]
    assert answer(build(COMPLETE, ("p",), {}), completion("a")) == "a"
    assert answer(build(COMPLETE, ("p",), {"n": 1}), completion("a")) == "a"


def test_a_chats_answer_is_its_content():
    response = {"choices": [{"message": {"role": "assistant", "content": "yes"}}]}
    assert answer(build(CHAT, (HELLO,), {}), response) == "yes"


def test_raw_is_the_response_as_it_came():
    response = completion("a")
    assert answer(build(COMPLETE, ("p",), {"raw": True}), response) is response
    response = vectors([0.5])
    assert answer(build(EMBED, ("p",), {"raw": True}), response) is response


def test_vectors_come_in_the_order_of_their_texts():
    response = vectors([0.5], [0.25])
    response["data"].reverse()
    found = answer(build(EMBED, (["a", "b"],), {}), response)
    assert [vector.floats() for vector in found] == [[0.5], [0.25]]
    assert answer(build(EMBED, ("a",), {}), vectors([0.5])).floats() == [0.5]
    (alone,) = answer(build(EMBED, (["a"],), {}), vectors([0.5]))
    assert alone.floats() == [0.5]


def test_a_vector_in_base64_stays_as_it_came():
    text = base64.b64encode(struct.pack("<2f", 0.5, -0.25)).decode()
    found = answer(build(EMBED, ("a",), {}), vectors(text))
    assert found == Vector(text)
    assert found.floats() == [0.5, -0.25]


COMPLETION = build(COMPLETE, ("p",), {})
EMBEDDING = build(EMBED, ("p",), {})


@pytest.mark.parametrize(
    ("request_", "response"),
    [
        (COMPLETION, {}),
        (COMPLETION, {"choices": None}),
        (COMPLETION, {"choices": []}),
        (COMPLETION, {"choices": ["a"]}),
        (COMPLETION, {"choices": [{}]}),
        (COMPLETION, {"choices": {"text": "a"}}),
        (COMPLETION, completion("a", "b")),
        (COMPLETION, completion(None)),
        (COMPLETION, completion("", completion_tokens=0)),
        (COMPLETION, {"choices": [{"index": "x", "text": "a"}, {"text": "b"}]}),
        (build(COMPLETE, ("p",), {"n": 2}), completion("a")),
        (build(CHAT, (HELLO,), {}), {"choices": [{"text": "a"}]}),
        (build(CHAT, (HELLO,), {}), {"choices": [{"message": None}]}),
        (build(COMPLETE, ("p",), {"raw": True}), {"result": "what?"}),
        (EMBEDDING, {}),
        (EMBEDDING, vectors()),
        (EMBEDDING, vectors([])),
        (EMBEDDING, vectors(None)),
        (EMBEDDING, vectors(["a"])),
        (EMBEDDING, vectors([0.5], [0.5])),
        (build(EMBED, (["a", "b"],), {}), vectors([0.5])),
    ],
)
def test_a_body_that_is_no_answer_is_the_engines_fault(
    request_: Any, response: dict[str, Any]
):
    with pytest.raises(EngineFault, match="answered 200 with"):
        answer(request_, response)


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4}, (3, 4)),
        ({"prompt_tokens": 3}, (3, None)),
        ({"prompt_tokens": "3", "completion_tokens": "4"}, (0, None)),
        ({}, (0, None)),
        (None, (0, None)),
        ([3, 4], (0, None)),
        ("3", (0, None)),
    ],
)
def test_tokens_are_what_the_response_says_if_it_says_so(
    usage: Any, counts: tuple[int, int | None]
):
    assert tokens({"usage": usage}) == counts
    assert tokens({}) == (0, None)


# Texts that are empty, or none.

GENERATED = {"prompt_tokens": 3, "completion_tokens": 40}


def ended(text: Any, reason: Any = "stop", usage: Any = GENERATED) -> dict[str, Any]:
    """A completion's response."""
    return {"choices": [{"text": text, "finish_reason": reason}], "usage": usage}


def said(message: Any, reason: Any = "stop", usage: Any = GENERATED) -> dict[str, Any]:
    """A chat's response."""
    choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
    return {"choices": [choice], "usage": usage}


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize(
    "response",
    [
        ended(""),
        ended("", "length"),
        ended("", "eos_token"),
        ended("", {"type": "stop", "matched": "Observation:"}),
        ended("", usage=None),
        ended("", usage={}),
        ended("", None),
        ended("", "stop", {"completion_tokens": 1}),
    ],
    ids=str,
)
def test_an_empty_text_is_an_answer_where_the_engine_generated(
    response: dict[str, Any], raw: bool
):
    found = answer(build(COMPLETE, ("p",), {"raw": raw}), response)
    assert found == (response if raw else "")


@pytest.mark.parametrize(
    "message",
    [
        {"content": ""},
        {"content": None},
        {"content": None, "reasoning": "Let me think", "tool_calls": []},
        {"content": None, "reasoning_content": "Let me think"},
        {"reasoning_content": "Let me think"},
        {"content": None, "refusal": "I must not"},
        {"content": None, "tool_calls": [CALL]},
        {"content": "", "tool_calls": [CALL]},
    ],
    ids=str,
)
def test_a_chat_without_text_gives_an_empty_text(message: dict[str, Any]):
    request = build(CHAT, (HELLO,), {})
    for reason in ("stop", "length", "tool_calls"):
        assert answer(request, said(message, reason)) == ""
        assert answer(request, said(message, reason, usage=None)) == ""


def test_one_of_several_texts_may_be_empty():
    response = {
        "choices": [
            {"index": 1, "text": "", "finish_reason": "stop"},
            {"index": 0, "text": "a", "finish_reason": "length"},
        ],
        "usage": GENERATED,
    }
    assert answer(build(COMPLETE, ("p",), {"n": 2}), response) == ["a", ""]


def test_a_prompt_that_is_only_scored_has_no_tokens():
    request = build(COMPLETE, ("p",), {"max_tokens": 0, "echo": True})
    nothing = {"prompt_tokens": 1, "completion_tokens": 0}
    for text in ("p", ""):
        response = ended(text, "length", nothing)
        assert answer(request, response) == text
        assert not is_cut_off(request, response)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize(
    "response",
    [
        ended("", "stop", {"completion_tokens": 0}),
        ended("", None, {"completion_tokens": 0}),
        ended("", None, None),
        ended(None),
        ended(5),
        ended(["a"]),
        {"error": {"message": "out of luck"}},
        {"choices": [None]},
    ],
    ids=str,
)
def test_a_text_that_nothing_was_generated_for_is_none(
    response: dict[str, Any], raw: bool
):
    with pytest.raises(EngineFault, match="wrong shape") as raised:
        answer(build(COMPLETE, ("p",), {"raw": raw}), response)
    assert raised.value.way == "wrong shape"


@pytest.mark.parametrize(
    "message", [{}, None, {"content": 5}, {"content": ["a"]}, {"role": "assistant"}]
)
def test_a_message_that_says_nothing_is_none(message: Any):
    with pytest.raises(EngineFault, match="wrong shape"):
        answer(build(CHAT, (HELLO,), {}), said(message))


def test_the_words_in_a_body_of_the_wrong_shape_are_told():
    with pytest.raises(EngineFault, match="out of luck"):
        answer(COMPLETION, {"error": {"message": "out of luck"}})


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize(
    "reason", ["abort", "ABORT", "error", {"type": "abort", "message": "gone"}], ids=str
)
def test_a_generation_that_was_broken_off_is_no_answer(reason: Any, raw: bool):
    response = {
        "choices": [
            {"index": 0, "text": "whole", "finish_reason": "stop"},
            {"index": 1, "text": "ha", "finish_reason": reason},
        ]
    }
    with pytest.raises(EngineFault, match=r'ended by "(abort|error)"'):
        answer(build(COMPLETE, ("p",), {"n": 2, "raw": raw}), response)


@pytest.mark.parametrize(
    ("reason", "cut"),
    [("length", True), ({"type": "length"}, True), ("stop", False), (None, False)],
)
def test_what_max_tokens_ended_is_cut_off(reason: Any, cut: bool):
    assert is_cut_off(COMPLETION, ended("a", reason)) is cut
    assert not is_cut_off(EMBEDDING, vectors([0.5]))


# Tools.


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ({"content": None, "tool_calls": [CALL]}, (None, [CALL])),
        ({"content": "", "tool_calls": [CALL]}, (None, [CALL])),
        ({"content": "I look", "tool_calls": [CALL, CALL]}, ("I look", [CALL, CALL])),
        ({"content": "no need"}, ("no need", [])),
        ({"content": "no need", "tool_calls": None}, ("no need", [])),
        ({"content": None, "reasoning": "hm"}, ("", [])),
    ],
    ids=str,
)
def test_with_tools_the_answer_is_the_message(message: dict[str, Any], found: Any):
    request = build(CHAT, (HELLO,), {"tools": TOOLS})
    content, calls = found
    assert answer(request, said({"role": "assistant", **message}, "tool_calls")) == {
        "role": "assistant",
        "content": content,
        "tool_calls": calls,
    }


def test_several_messages_with_tools_are_a_list():
    choice = {"message": {"content": "a"}, "finish_reason": "stop"}
    request = build(CHAT, (HELLO,), {"tools": TOOLS, "n": 2})
    found = answer(request, {"choices": [choice, choice]})
    assert [message["content"] for message in found] == ["a", "a"]


def test_no_tools_at_all_leave_a_text():
    request = build(CHAT, (HELLO,), {"tools": []})
    assert answer(request, said({"content": "a"})) == "a"
