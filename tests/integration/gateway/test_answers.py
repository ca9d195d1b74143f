"""OpenAI's requests through the gateway, answered whole."""

import base64
import json
from array import array
from typing import Any

import pytest

from modelserver.gateway.responses import ResponseFolder, ResponseRecord, items_of
from tests.engine.openai_api import answer_text, embedding
from tests.integration.gateway.conftest import Served
from tests.support.processes import eventually
from tests.support.workers import PATIENCE, FleetSite


def test_a_completion_is_the_engines_body(gateway: Served):
    status, body, headers = gateway.ask(
        "/v1/completions", {"model": "writer", "prompt": "hello", "max_tokens": 4}
    )
    assert status == 200
    assert body["object"] == "text_completion"
    assert body["model"] == "writer"
    assert body["choices"] == [
        {
            "index": 0,
            "text": answer_text("hello"),
            "finish_reason": "length",
            "logprobs": None,
        }
    ]
    assert body["usage"] == {
        "prompt_tokens": 1,
        "completion_tokens": 4,
        "total_tokens": 5,
    }
    assert headers["x-modelserver-engine"] == "writer-0"
    assert headers["x-request-id"].startswith("req_")
    assert not {"engine", "seconds"} & body.keys()


def test_several_prompts_of_one_body_are_answered_in_order(gateway: Served):
    prompts = [f"prompt {number}" for number in range(20)]
    _, body, _ = gateway.ask(
        "/v1/completions",
        {"model": "writer", "prompt": prompts, "max_tokens": 2, "n": 2},
    )
    told = [(choice["index"], choice["text"]) for choice in body["choices"]]
    expected = [answer_text(prompt) for prompt in prompts for _ in "12"]
    assert told == list(enumerate(expected))
    assert body["usage"]["completion_tokens"] == 80


def test_a_chat_is_answered(gateway: Served):
    messages = [{"role": "user", "content": [{"type": "text", "text": "hi there"}]}]
    status, body, _ = gateway.ask(
        "/v1/chat/completions", {"model": "writer", "messages": messages}
    )
    assert status == 200
    assert body["choices"][0]["message"] == {
        "role": "assistant",
        "content": answer_text("hi there"),
    }


@pytest.mark.parametrize("form", ["float", "base64", None])
def test_vectors_come_in_the_form_that_is_asked_for(gateway: Served, form: str | None):
    asked: dict[str, Any] = {"model": "vectors", "input": ["a b", "c"]}
    if form:
        asked["encoding_format"] = form
    _, body, _ = gateway.ask("/v1/embeddings", asked)
    told = [each["embedding"] for each in body["data"]]
    if form == "base64":
        told = [array("f", base64.b64decode(each)).tolist() for each in told]
    assert told == [embedding("a b"), embedding("c")]
    assert body["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


def test_tokens_are_the_engines(gateway: Served, fleet: Any):
    asked = {"model": "writer", "prompt": "three short words"}
    status, body, headers = gateway.ask("/tokenize", asked)
    assert (status, body) == (200, {"tokens": [5, 5, 5], "count": 3})
    assert headers["x-modelserver-engine"] == "writer-0"
    status, body, _ = gateway.ask("/tokenize", {"model": "writer", "prompt": [[1]]})
    assert (status, body["error"]["param"]) == (400, "prompt")


def test_a_path_that_an_engine_has_not_is_told(gateway: Served):
    asked = {"model": "writer", "input": "hi"}
    status, body, _ = gateway.ask("/v1/responses", asked)
    assert (status, body["error"]["code"]) == (404, "unknown_url")
    status, body, _ = gateway.ask("/v1/responses", asked | {"stream": True})
    assert (status, body["error"]["code"]) == (404, "unknown_url")
    status, body, _ = gateway.ask("/v1/responses", asked | {"background": True})
    assert (status, body["error"]["param"]) == (400, "background")


def test_models_are_listed_and_described(gateway: Served):
    _, listed, _ = gateway.ask("/v1/models")
    names = {each["id"]: each["kind"] for each in listed["data"]}
    assert names["writer"] == "completion"
    assert names["vectors"] == "embedding"
    _, one, _ = gateway.ask("/v1/models/writer")
    assert one in listed["data"]


def test_a_repeat_with_the_same_key_finds_the_answer(gateway: Served, fleet: Any):
    key = {"Idempotency-Key": "once"}
    body = {"model": "writer", "prompt": "only once", "max_tokens": 3}
    first = gateway.ask("/v1/completions", body, headers=key)[1]
    again = gateway.ask("/v1/completions", body, headers=key)[1]
    assert first == again
    assert fleet.engines["writer-0"].stats()["executed"]["only once"] == 1
    stream = gateway.ask("/v1/completions", body | {"stream": True}, headers=key)[1]
    told = json.loads(stream.partition(b"\n")[0].removeprefix(b"data: "))
    assert told["choices"] == first["choices"]
    other = {"model": "vectors", "input": "only once"}
    assert gateway.ask("/v1/embeddings", other, headers=key)[1]["data"]


def test_a_large_answer_is_not_told_where_others_listen(
    gateway: Served, fleet: FleetSite
):
    texts = [f"text {number}" for number in range(20_000)]
    told: list[int] = []
    with fleet.store.client.pubsub(ignore_subscribe_messages=True) as channel:
        channel.psubscribe("*celery-task-meta-*")
        for number in (1, len(texts)):
            asked = {"model": "vectors", "input": texts[:number]}
            answer = gateway.ask("/v1/embeddings", asked)[1]
            assert len(answer["data"]) == number

        def heard() -> int:
            if message := channel.get_message():
                told.append(len(message["data"]))
            return len(told) == 2

        eventually(heard, PATIENCE)
    assert told[0] > 0
    assert told[1] == 0


def test_health_and_metrics_answer(gateway: Served):
    assert gateway.ask("/health")[1]["status"] == "ok"
    status, page, _ = gateway.ask("/metrics")
    assert status == 200
    assert b"modelserver_up 1.0" in page
    assert b"modelserver_gateway_responses_bytes 0.0" in page


def test_a_response_that_was_kept_is_shown_listed_and_removed(
    gateway: Served, site: FleetSite
):
    yo = {"id": "msg_1", "type": "message", "role": "assistant", "content": []}
    body = {"id": "resp_1", "object": "response", "output": [yo]}
    responses = ResponseFolder(site.settings.files_dir / "responses")
    responses.keep(ResponseRecord(body, items_of("hi")), "")
    path = "/v1/responses/resp_1"
    assert gateway.ask(path)[1] == body
    [item] = gateway.ask(f"{path}/input_items")[1]["data"]
    assert item == {"id": item["id"], **items_of("hi")[0]}
    asked = {"model": "writer", "input": "more", "previous_response_id": "resp_1"}
    # The fleet's engine, to which it is sent, does not know the path.
    assert gateway.ask("/v1/responses", asked)[1]["error"]["code"] == "unknown_url"
    removed = {"id": "resp_1", "object": "response", "deleted": True}
    assert gateway.ask(path, method="DELETE")[1] == removed
    assert gateway.ask(path)[0] == 404
    error = gateway.ask("/v1/responses", asked)[1]["error"]
    assert error["code"] == "previous_response_not_found"


@pytest.mark.parametrize("path", ["/v1/completions/", "//v1//completions"])
def test_slashes_too_many_lead_to_the_path(gateway: Served, path: str):
    asked = {"model": "writer", "prompt": "hello", "max_tokens": 2}
    status, _, headers = gateway.ask(path, asked)
    assert (status, headers["location"]) == (308, "/v1/completions")
    assert gateway.ask("/v1/models/writer/")[1]["id"] == "writer"
    assert gateway.ask("/v1/nothing/")[0] == 404
