"""Messages that nobody can digest: their callers get errors, all others answers."""

import base64
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from celery.exceptions import NotRegistered
from celery.result import AsyncResult

from modelserver.errors import RequestError
from modelserver.messaging.wire import COMPLETE
from modelserver.store.fleet.workers import read_backlog
from tests.engine.openai_api import answer_text
from tests.support.processes import eventually
from tests.support.workers import PATIENCE, FleetSite, answers

NO_STEPS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def envelope(task: str, **changes: Any) -> dict[str, Any]:
    """A message as a plain producer of Celery writes it."""
    body = json.dumps([["plain"], {"model": "writer"}, NO_STEPS])
    message: dict[str, Any] = {
        "body": base64.b64encode(body.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py",
            "task": COMPLETE,
            "id": task,
            "eta": None,
            "expires": None,
            "retries": 0,
            "timelimit": [None, None],
            "root_id": task,
            "parent_id": None,
            "argsrepr": "",
            "kwargsrepr": "",
            "origin": "plain",
        },
        "properties": {
            "correlation_id": task,
            "reply_to": "x",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "writer"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": "x",
        },
    }
    headers = changes.pop("headers", {})
    message["headers"] |= headers
    return message | changes


def body(value: Any, **changes: Any) -> Callable[[str], str]:
    """A message with this body: a text, or what becomes one as JSON."""
    text = value if isinstance(value, str) else json.dumps(value)
    encoded = base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()
    return lambda task: json.dumps(envelope(task, body=encoded, **changes))


def headers(**values: Any) -> Callable[[str], str]:
    """A message with these headers."""
    return lambda task: json.dumps(envelope(task, headers=values))


REFUSED: dict[str, Callable[[str], str]] = {
    "broken JSON": body('[["a"], {'),
    "NaN": body('[["a"], {"temperature": NaN}, null]'),
    "infinite": body('[["a"], {"logit_bias": {"1": -Infinity}}, null]'),
    "a lone surrogate": body('[["\\ud83d"], {}, null]'),
    "surrogates that are no UTF-8": body(
        [["a"], {"x": 1}, None], headers={"x": "\ud83d"}
    ),
    "two elements": body([["a"], {}]),
    "four elements": body([["a"], {}, {}, {}]),
    "an object of protocol 1 beside headers of 2": body({"args": [], "kwargs": {}}),
    "null": body("null"),
    "a number": body("7"),
    "an empty body": body(""),
    "args that are no list": body(["a", {}, None]),
    "args that are an object": body([{"prompt": "a"}, {}, None]),
    "kwargs that are no object": body([["a"], ["b"], None]),
    "steps that are no object": body([["a"], {}, ["x"]]),
    "no base64": lambda task: json.dumps(envelope(task, body="%%%a")),
    "a body that is no text": lambda task: json.dumps(envelope(task, body=5)),
    "a body that is null": lambda task: json.dumps(envelope(task, body=None)),
    "an unknown encoding of the body": lambda task: json.dumps(
        envelope(task)
        | {"properties": envelope(task)["properties"] | {"body_encoding": "rot13"}}
    ),
    "yaml": body("[[a], {}, null]", **{"content-type": "application/x-yaml"}),
    "pickle": body(
        "x",
        **{
            "content-type": "application/x-python-serialize",
            "content-encoding": "binary",
        },
    ),
    "no content type": body([["a"], {}, None], **{"content-type": None}),
    "a content type that is no text": body([["a"], {}, None], **{"content-type": [1]}),
    "a compression that is unknown": headers(compression="application/x-nothing"),
    "a compression that is not true": headers(compression="application/x-gzip"),
    "eta that is no time": headers(eta="tomorrow"),
    "eta that is a number": headers(eta=5),
    "expires that is no time": headers(expires="never"),
    "expires that is a list": headers(expires=[1]),
    "retries that are no number": headers(retries="x"),
    "a timelimit that is a text": headers(timelimit="soon"),
    "a timelimit of texts": headers(timelimit=["a", "b"]),
    "a deadline that is no number": headers(deadline_at="soon"),
    "a task that is no text": headers(task=["x"]),
    "a deep body": body("[" * 100_000 + "]" * 100_000),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_nobody_can_digest_is_an_error_for_its_caller_and_nobody_else(
    fleet: FleetSite, kind: str
):
    task = str(uuid.uuid4())
    before = fleet.workers[0].said().count("\n")
    put(fleet, REFUSED[kind](task))
    results = fleet.send(["after"])
    with pytest.raises(RequestError, match="the message cannot be executed"):
        AsyncResult(task, app=fleet.app).get(timeout=PATIENCE)
    assert answers(results) == [answer_text("after")]
    eventually(lambda: fleet.held() + read_backlog(fleet.store, "writer") == 0)
    said = fleet.workers[0].said().splitlines()[before:]
    assert len([line for line in said if "ready." not in line]) <= 1, said


#: What stands in place of the properties of a message whose id nobody knows.
UNNAMED = {"properties": {"body_encoding": "base64"}}
NOBODYS: dict[str, str] = {
    "no JSON": "junk",
    "empty": "",
    "bytes": "\x00\x01",
    "a list": "[1, 2]",
    "a number": "3",
    "an empty object": "{}",
    "headers that are a list": '{"headers": [], "properties": {}, "body": ""}',
    "properties that are a list": '{"headers": {}, "properties": [], "body": "e30="}',
    "a null id": json.dumps(
        envelope("x", headers={"id": None})
        | {"properties": {"body_encoding": "base64"}}
    ),
    "an id that is an object": json.dumps(envelope("x", headers={"id": {}}) | UNNAMED),
}


@pytest.mark.parametrize("kind", NOBODYS)
def test_what_nobody_waits_for_is_dropped_and_its_neighbours_are_answered(
    fleet: FleetSite, kind: str
):
    before = fleet.workers[0].said().count("\n")
    put(fleet, NOBODYS[kind])
    names = [f"beside {place}" for place in range(40)]
    assert answers(fleet.send(names)) == [answer_text(name) for name in names]
    eventually(lambda: fleet.held() + read_backlog(fleet.store, "writer") == 0)
    assert len(fleet.workers[0].said().splitlines()[before:]) <= 1


ODD: dict[str, Callable[[str], str]] = {
    "a group that is an object": headers(group={"a": 1}),
    "a root that is an object": headers(root_id={"a": 1}),
    "stamps that are a list": headers(stamps=[1], stamped_headers={"a": 1}),
    "a timelimit below zero": headers(timelimit=[-1, -1]),
    "a shadow that is a number": headers(shadow=5),
    "retries below zero": headers(retries=-7),
    "callbacks that are none": body([["a"], {}, {"callbacks": [5]}]),
    "errbacks that are a text": body([["a"], {"n": "x"}, {"errbacks": "x"}]),
    "a chain that is a text": body([["a"], {}, {"chain": "x"}]),
    "a chord that is a number": body([["a"], {}, {"chord": 5}], headers={"group": "g"}),
    "an id of 100,000 characters": headers(id="x" * 100_000),
    "an id with line breaks": headers(id="a\nb"),
    "crashes that are no number": headers(crashes="x"),
    "reaps that are no number": headers(reaps="x", faults=[]),
    "failed tries that are none": headers(failed_tries=[{"attempts": "many"}]),
    "steps that are known to nobody": body([["a"], {}, {"x": 1, "id": 7, "task": 3}]),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_odd_is_settled_and_never_goes_round(fleet: FleetSite, kind: str):
    before = len(fleet.workers[0].said())
    put(fleet, ODD[kind](str(uuid.uuid4())))
    assert answers(fleet.send(["after"])) == [answer_text("after")]
    eventually(
        lambda: fleet.held() + read_backlog(fleet.store, "writer") == 0, PATIENCE
    )
    assert len(fleet.workers[0].said()) - before < 20_000


def test_a_task_that_is_unknown_here_fails(fleet: FleetSite):
    task = str(uuid.uuid4())
    put(fleet, headers(task="not.there")(task))
    with pytest.raises(NotRegistered, match=r"not\.there"):
        AsyncResult(task, app=fleet.app).get(timeout=PATIENCE)


def test_protocol_1_is_understood(fleet: FleetSite):
    task = str(uuid.uuid4())
    message = envelope(task) | {"headers": {}}
    old = {"task": COMPLETE, "id": task, "args": ["old"], "kwargs": {}, "retries": 0}
    old |= {"eta": None, "expires": None, "utc": True, "taskset": None, "chord": None}
    message["body"] = base64.b64encode(json.dumps(old).encode()).decode()
    put(fleet, json.dumps(message))
    result = AsyncResult(task, app=fleet.app)
    assert result.get(timeout=PATIENCE) == answer_text("old")


def test_a_message_of_the_version_before_is_answered(fleet: FleetSite):
    task = str(uuid.uuid4())
    put(fleet, json.dumps(envelope(task)))
    result = AsyncResult(task, app=fleet.app)
    assert result.get(timeout=PATIENCE) == answer_text("plain")


def test_a_plain_compressed_message_is_answered(fleet: FleetSite):
    (result,) = fleet.send(["squeezed"], compression="zlib")
    assert result.get(timeout=PATIENCE) == answer_text("squeezed")


def test_a_queued_request_takes_little_more_than_its_text(fleet: FleetSite):
    sizes = {}
    for name, text in {"latin": "word " * 200, "chinese": "汉字" * 500}.items():
        fleet.complete.apply_async((text,), {"max_tokens": 64}, queue="nobody")
        key = fleet.store.keys.queue("nobody")[0]
        raw = fleet.store.client.lpop(key)
        # The name of this process differs from machine to machine.
        sizes[name] = len(raw.encode()) - len(json.loads(raw)["headers"]["origin"])
    assert sizes["latin"] + len("gen12345@vm") <= 1230
    assert sizes["chinese"] + len("gen12345@vm") <= 3230


def put(fleet: FleetSite, raw: str) -> None:
    """What a plain producer does."""
    key = fleet.store.keys.queue("writer")[0]
    fleet.store.client.lpush(key, raw)
