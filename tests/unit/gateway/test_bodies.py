"""Bodies of OpenAI's API as calls, and answers as bodies."""

import json

import pytest

from modelserver.errors import RequestError
from modelserver.gateway.bodies import Asked, add_usages, join, read_body
from modelserver.messaging.wire import CHAT, COMPLETE, EMBED

HI = [{"role": "user", "content": "hi"}]


def payloads(prompt: object) -> list[object]:
    asked = read_body("/v1/completions", {"model": "m", "prompt": prompt})
    return [call.payload for call in asked.calls]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a", ["a"]),
        ([1, 2], [[1, 2]]),
        (["a", "b"], ["a", "b"]),
        ([[1], [2, 3]], [[1], [2, 3]]),
        (["a"], ["a"]),
    ],
)
def test_each_prompt_is_a_call(prompt: object, expected: list[object]):
    assert payloads(prompt) == expected


def test_what_we_do_not_know_is_for_the_engine():
    body = {"model": "m", "messages": HI, "temperature": 0, "min_p": None, "odd": 1}
    [call] = read_body("/v1/chat/completions", body).calls
    assert call.task == CHAT
    assert call.arguments == {
        "temperature": 0,
        "extra_body": {"odd": 1},
        "model": "m",
        "raw": True,
    }


def test_an_empty_list_of_tools_is_none():
    none: dict[str, object] = {"tools": [], "tool_choice": "auto"}
    body = {"model": "m", "messages": HI, "parallel_tool_calls": True, **none}
    [call] = read_body("/v1/chat/completions", body).calls
    assert call.arguments == {"model": "m", "raw": True}


def test_vectors_travel_as_base64_whatever_is_asked_for():
    asked = read_body("/v1/embeddings", {"model": "m", "input": ["a", "b"]})
    assert asked.as_numbers
    assert asked.calls[0].task == EMBED
    assert asked.calls[0].payload == ["a", "b"]
    assert asked.calls[0].arguments["encoding_format"] == "base64"


def test_a_stream_with_its_options():
    body = {
        "model": "m",
        "prompt": "a",
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    asked = read_body("/v1/completions", body)
    assert (asked.stream, asked.stream_usage) == (True, True)
    assert asked.calls[0].arguments == {"model": "m", "raw": True, "max_tokens": 16}


def test_only_a_completion_without_a_number_of_tokens_gets_one():
    asked = read_body("/v1/completions", {"model": "m", "prompt": "a", "max_tokens": 5})
    assert asked.calls[0].arguments["max_tokens"] == 5
    [chat] = read_body("/v1/chat/completions", {"model": "m", "messages": HI}).calls
    assert "max_tokens" not in chat.arguments


@pytest.mark.parametrize("body", [None, [], "a", 5, True])
def test_a_body_is_an_object(body: object):
    with pytest.raises(RequestError, match="must be a JSON object"):
        read_body("/v1/completions", body)


def test_several_answers_are_one_body():
    asked = read_body("/v1/completions", {"model": "m", "prompt": ["a", "b"], "n": 2})
    answers = [
        {
            "id": name,
            "model": "folder",
            "choices": [{"index": 0, "text": name}, {"index": 1, "text": name}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
        }
        for name in ("a", "b")
    ]
    body = join(asked, answers)
    assert [(each["index"], each["text"]) for each in body["choices"]] == [
        (0, "a"),
        (1, "a"),
        (2, "b"),
        (3, "b"),
    ]
    assert body["model"] == "m"
    assert body["usage"]["total_tokens"] == 6


def test_a_single_answer_is_the_engines_own_but_for_the_models_name():
    asked = Asked(
        "m", read_body("/v1/completions", {"model": "m", "prompt": "a"}).calls
    )
    answer = {"choices": [{"index": 0}], "model": "folder", "odd": 1}
    assert join(asked, [answer]) == {**answer, "model": "m"}
    assert asked.calls[0].task == COMPLETE


def test_the_metadata_of_an_answer_is_texts():
    asked = read_body("/v1/completions", {"model": "m", "prompt": "a"})
    told = {"weight_version": "a", "weight_versions": [{"version": "a", "start": 0}]}
    found = join(asked, [{"choices": [], "metadata": told}])["metadata"]
    assert found["weight_version"] == "a"
    assert json.loads(found["weight_versions"]) == told["weight_versions"]


def test_details_of_usages_are_added():
    one = {"total_tokens": 2, "details": {"cached": 1}}
    assert add_usages([one, {"total_tokens": 1, "details": None}, one]) == {
        "total_tokens": 5,
        "details": {"cached": 2},
    }
