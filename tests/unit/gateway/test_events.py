"""What a stream's events say."""

from typing import Any

import orjson
import pytest

from modelserver.gateway.bodies import read_body
from modelserver.gateway.calling import Told
from modelserver.gateway.events import find_response, open_events
from modelserver.gateway.faults import Fault, Refused

ASKED = read_body("/v1/responses", {"model": "m", "input": "hi", "stream": True})


def parsed(event: bytes) -> tuple[str, dict[str, Any]]:
    name, data = event.decode().strip().split("\n")
    return name.removeprefix("event: "), orjson.loads(data.removeprefix("data: "))


def test_events_of_a_response_are_the_engines_under_our_name():
    usage = {"input_tokens": 3, "output_tokens": 2}
    parts = [
        {"type": "response.created", "response": {"model": "/x", "usage": None}},
        {"type": "response.output_text.delta", "delta": "a"},
        {"type": "response.completed", "response": {"model": "/x", "usage": usage}},
    ]
    events = open_events(ASKED)
    told = [parsed(each) for each in events.of(Told(0, parts))]
    assert [name for name, _ in told] == [each["type"] for each in parts]
    assert [body["sequence_number"] for _, body in told] == [0, 1, 2]
    assert told[0][1]["response"]["model"] == "m"
    assert told[1][1]["delta"] == "a"
    assert events.usages == {0: usage}
    assert list(events.end()) == []


def test_an_error_in_a_response_is_found_in_either_form():
    events = open_events(ASKED)
    delta = {"type": "response.output_text.delta", "delta": "a"}
    assert len(list(events.of(Told(0, [delta, delta])))) == 2
    name, body = parsed(events.failed(Fault(503, "gone", code="engine_error")))
    assert (name, body["type"], body["sequence_number"]) == ("error", "error", 2)
    assert (body["message"], body["code"]) == ("gone", "engine_error")
    assert body["error"]["message"] == "gone"
    assert events.usages == {0: {"output_tokens": 2}}


def told(path: str, *news: Told) -> list[dict[str, Any]]:
    """The choices of a stream's events."""
    body = {"model": "m", "prompt": "a", "messages": [], "stream": True}
    events, found = open_events(read_body(path, body)), []
    for each in news:
        for event in events.of(each):
            found += orjson.loads(event.removeprefix(b"data: "))["choices"]
    return found


def test_an_answer_whose_parts_are_gone_comes_in_one():
    text = {"index": 0, "text": "abc", "finish_reason": "stop"}
    assert told("/v1/completions", Told(0, [], {"choices": [text]})) == [text]
    call = {"id": "c", "type": "function", "function": {"name": "f"}}
    said = {"role": "assistant", "content": None, "tool_calls": [call]}
    chat = {"index": 0, "message": said, "finish_reason": "tool_calls"}
    delta = said | {"tool_calls": [{"index": 0} | call]}
    assert told("/v1/chat/completions", Told(0, [], {"choices": [chat]})) == [
        {"index": 0, "delta": delta, "finish_reason": "tool_calls"}
    ]


def test_an_answer_that_was_told_to_its_end_is_not_told_again():
    first = {"index": 0, "text": "ab", "finish_reason": None}
    last = {"index": 0, "text": "c", "finish_reason": "stop"}
    whole = {"choices": [{"index": 0, "text": "abc", "finish_reason": "stop"}]}
    news = Told(0, [{"choices": [first]}]), Told(0, [{"choices": [last]}], whole)
    assert told("/v1/completions", *news) == [first, last]


def test_an_answer_that_was_told_in_part_does_not_look_whole():
    part = {"choices": [{"index": 0, "text": "a", "finish_reason": None}]}
    whole = {"choices": [{"index": 0, "text": "abc", "finish_reason": "stop"}]}
    with pytest.raises(Refused, match="ask without stream"):
        told("/v1/completions", Told(0, [part], whole))
    with pytest.raises(Refused, match="ask without stream"):
        list(open_events(ASKED).of(Told(0, [], {"output": []})))


def test_the_whole_response_of_a_stream_is_found_under_our_name():
    parts: list[dict[str, Any]] = [
        {"type": "response.created", "response": {"model": "/x"}},
        {"type": "response.incomplete", "response": {"model": "/x", "store": False}},
    ]
    events = open_events(ASKED)
    list(events.of(Told(0, parts)))
    found = {"model": "m", "store": True, "previous_response_id": None}
    assert find_response(Told(0, parts)) == found
    assert find_response(Told(0, parts[:1])) is None
    assert find_response(Told(0, [{"choices": []}], {"model": "/x"})) is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("completed", "response.completed"),
        ("incomplete", "response.incomplete"),
        ("failed", "response.failed"),
    ],
)
def test_the_last_event_says_how_a_response_ended(status: str, kind: str):
    response = {"id": "r", "model": "/x", "status": status}
    part = {"type": "response.completed", "response": response}
    [event] = open_events(ASKED).of(Told(0, [part]))
    name, body = parsed(event)
    assert (name, body["type"]) == (kind, kind)
