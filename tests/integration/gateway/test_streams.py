"""Answers that come in parts through the gateway."""

import json
import signal
from typing import Any

import pytest

from modelserver.store.fleet.measurements import read_model_times
from modelserver.store.histograms import FIRST_TOKEN
from tests.integration.gateway.conftest import Served
from tests.support.processes import eventually
from tests.support.workers import PATIENCE, FleetSite


def text_of(events: list[Any]) -> str:
    """The text of a stream's first choice."""
    found = ""
    for event in events[:-1]:
        for choice in event["choices"]:
            told = choice.get("delta") or choice
            if choice["index"] == 0:
                found += told.get("text") or told.get("content") or ""
    return found


def counting(first: int, last: int) -> str:
    return "".join(f" {number}" for number in range(first, last + 1))


def test_a_completion_comes_in_parts(gateway: Served):
    asked = {"model": "writer", "prompt": "count 4", "max_tokens": 6}
    events = list(gateway.events("/v1/completions", asked))
    assert events[-1] == "[DONE]"
    assert text_of(events) == counting(5, 10)
    reasons = [each["choices"][0]["finish_reason"] for each in events[:-1]]
    assert reasons == [None] * 5 + ["length"]
    assert len({each["id"] for each in events[:-1]}) == 1
    assert {each["model"] for each in events[:-1]} == {"writer"}


def test_a_chat_comes_in_parts_with_its_usage(gateway: Served):
    asked = {
        "model": "writer",
        "messages": [{"role": "user", "content": "count"}],
        "max_tokens": 5,
        "stream_options": {"include_usage": True},
    }
    events = list(gateway.events("/v1/chat/completions", asked))
    assert text_of(events) == counting(1, 5)
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert events[-2]["choices"] == []
    assert events[-2]["usage"]["completion_tokens"] == 5
    assert all(each["usage"] is None for each in events[:-2])


def test_the_time_to_the_first_token_of_a_stream_is_counted(
    gateway: Served, fleet: FleetSite
):
    def counted() -> int:
        counters = read_model_times(fleet.store, ["other"])["other"]
        return sum(FIRST_TOKEN.read(counters).counts)

    # Of a model that no other test asks for: what it has streamed is counted later.
    asked = {"model": "other", "prompt": "count 4", "max_tokens": 2}
    assert gateway.ask("/v1/completions", asked)[0] == 200
    list(gateway.events("/v1/completions", asked))
    eventually(lambda: counted() == 1, PATIENCE)


def test_prompts_of_one_stream_are_told_apart(gateway: Served):
    asked = {"model": "writer", "prompt": ["a 1", "b 7"], "max_tokens": 3, "n": 1}
    texts = ["", ""]
    for event in gateway.events("/v1/completions", asked):
        if event != "[DONE]":
            for choice in event["choices"]:
                texts[choice["index"]] += choice["text"]
    assert texts == [counting(2, 4), counting(8, 10)]


def test_parts_come_while_the_engine_generates(gateway: Served, fleet: FleetSite):
    fleet.engine("writer-1", "--latency", "3", limit=64)
    fleet.engines["writer-0"].fault(status=503)
    asked = {"model": "writer", "prompt": "slowly", "max_tokens": 30}
    stream = gateway.events("/v1/completions", asked)
    first = next(stream)
    assert first["choices"][0]["finish_reason"] is None
    # The engine is not done: it has the request.
    assert fleet.engines["writer-1"].stats()["in_flight"]
    assert text_of([first, *stream]) == counting(1, 30)


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_a_stream_goes_on_where_its_engine_dies(
    gateway: Served, fleet: FleetSite, path: str
):
    dies = fleet.engine("writer-1", "--latency", "1", limit=64)
    fleet.engines["writer-0"].fault(status=503)
    dies.fault(dies_at=12)
    asked: dict[str, Any] = {
        "model": "writer",
        "max_tokens": 30,
        "stream_options": {"include_usage": True},
    }
    if "chat" in path:
        asked["messages"] = [{"role": "user", "content": "go"}]
    else:
        asked["prompt"] = "go"
    stream = gateway.events(path, asked)
    events = [next(stream)]
    fleet.engines["writer-0"].fault()
    events += stream
    assert text_of(events) == counting(1, 30)
    assert events[-2]["usage"]["completion_tokens"] == 30


def test_a_stream_goes_on_where_its_worker_dies(gateway: Served, fleet: FleetSite):
    fleet.engines["writer-0"].fault(status=503)
    fleet.engine("writer-1", "--latency", "3", limit=64)
    asked = {"model": "writer", "prompt": "go", "max_tokens": 40}
    stream = gateway.events("/v1/completions", asked)
    events = [next(stream)]
    fleet.workers[-1].signal(signal.SIGKILL)
    fleet.workers[-1].wait()
    fleet.engines["writer-0"].fault()
    fleet.worker()
    events += stream
    assert text_of(events) == counting(1, 40)


def test_what_fails_before_the_first_part_has_a_status(gateway: Served):
    asked = {"model": "writer", "prompt": "a", "max_tokens": 40_000, "stream": True}
    status, body, _ = gateway.ask("/v1/completions", asked)
    assert status == 400
    assert body["error"]["code"] == "context_length_exceeded"


def test_a_client_that_goes_away_ends_the_generation(gateway: Served, fleet: FleetSite):
    engine = fleet.engine("writer-1", "--latency", "30", limit=64)
    fleet.engines["writer-0"].fault(status=503)
    asked = {"model": "writer", "prompt": "long", "max_tokens": 600, "stream": True}
    with gateway.connected() as connection:
        connection.request("POST", "/v1/completions", json.dumps(asked))
        response = connection.getresponse()
        assert response.readline().startswith(b"data: ")
    eventually(lambda: not engine.stats()["in_flight"], PATIENCE)
    assert engine.stats()["aborted"] == 1
