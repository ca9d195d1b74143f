"""What a stream's events say."""

from typing import Any

import orjson

from modelserver.gateway.bodies import read_body
from modelserver.gateway.calling import Told
from modelserver.gateway.events import open_events
from modelserver.gateway.faults import Fault

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
    assert events.usages == [usage]
    assert list(events.end()) == []


def test_an_error_in_a_response_is_found_in_either_form():
    events = open_events(ASKED)
    delta = {"type": "response.output_text.delta", "delta": "a"}
    assert len(list(events.of(Told(0, [delta, delta])))) == 2
    name, body = parsed(events.failed(Fault(503, "gone", code="engine_error")))
    assert (name, body["type"], body["sequence_number"]) == ("error", "error", 2)
    assert (body["message"], body["code"]) == ("gone", "engine_error")
    assert body["error"]["message"] == "gone"
    assert events.usages == [{"output_tokens": 2}]
