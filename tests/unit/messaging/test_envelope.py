"""How messages are kept small, and that they are read all the same."""

import json
from typing import Any

import orjson
import pytest
from celery import Celery
from celery.worker.request import Request
from kombu.serialization import loads
from kombu.transport.virtual import Channel

from modelserver.messaging.envelope import dumps, shown, slim, unescaped
from modelserver.messaging.wire import CHAT, COMPLETE
from modelserver.store.batch import Delivery
from modelserver.store.messages.delivery import mark_redelivered
from workers.reading import UnreadableMessage, read

TASK = "0f1d2c3b-4a59-4687-9e0f-1a2b3c4d5e6f"
NO_STEPS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


@pytest.mark.parametrize(
    "value",
    [
        "plain",
        "汉字 😀 é",
        r"a path \u4e2d C:\users",
        'quote " and \\ and \x00 \x1f \x7f',
        "half \ud83d of a character",
        "\u2028 line",
        {"键": ["值", 10**30, 0.1]},
    ],
)
def test_a_body_means_the_same_however_it_is_kept_small(value: Any):
    body = [[value], {"a": value}, NO_STEPS]
    assert json.loads(unescaped(json.dumps(body))) == body
    assert json.loads(unescaped(dumps(body))) == [[value], {"a": value}, {}]


def test_chinese_text_takes_three_bytes_a_character():
    assert len(unescaped(json.dumps("汉" * 100)).encode()) == 302
    assert len(dumps([["汉" * 100], {}, NO_STEPS]).encode()) == 302 + len("[[],{},{}]")


def test_what_follows_a_task_stays_as_celery_wrote_it():
    body = [["a"], {}, NO_STEPS | {"chain": [{"kwargs": {"seed": float("nan")}}]}]
    assert "NaN" in dumps(body)


def sent(app: Celery, text: str, **headers: Any) -> dict[str, Any]:
    """A request's message as Celery and kombu make it, before it is put."""
    made = app.amqp.as_task_v2(
        TASK, COMPLETE, (text,), {}, argsrepr="", kwargsrepr="", origin="gen1@host"
    )
    channel = Channel.__new__(Channel)
    channel.body_encoding = None
    message: dict[str, Any] = channel.prepare_message(
        dumps(made.body),
        0,
        "application/json",
        "utf-8",
        made.headers | headers,
        dict(made.properties),
    )
    message["properties"] |= {"body_encoding": "utf-8", "delivery_mode": 2}
    message["properties"]["delivery_info"] = {"exchange": "", "routing_key": "writer"}
    return message


def received(app: Celery, raw: bytes) -> Request:
    """What Celery makes of a message that was pulled from the queue ``writer``."""
    accept = {"application/json"}
    channel = Channel.__new__(Channel)
    message = read(Delivery("1-1", "writer", raw), "writer", channel, app.tasks, accept)
    assert not isinstance(message, UnreadableMessage), message
    return Request(message, app=app, task=app.tasks[COMPLETE])


@pytest.fixture
def app() -> Celery:
    app = Celery(set_as_current=False)

    @app.task(name=COMPLETE, shared=False)
    def complete(prompt: str) -> str:
        return prompt

    app.finalize()
    return app


def test_celery_reads_a_slim_message_as_it_reads_a_full_one(app: Celery):
    full = sent(app, "a prompt")
    small = orjson.dumps(slim(full, "writer"))
    assert len(small) < len(orjson.dumps(full)) / 2
    for raw in (orjson.dumps(full), small, mark_redelivered(small)):
        request = received(app, raw)
        assert request.id == TASK
        assert request.args == ["a prompt"]
        assert request.kwargs == {}
        assert request.time_limits in ((None, None), [None, None])
        assert not request.ignore_result
        assert request.delivery_info["routing_key"] == "writer"
        assert request.delivery_info["redelivered"] == (b"redelivered" in raw)
        assert request.request_dict["origin"] == "gen1@host"


def test_what_cannot_be_filled_in_stays(app: Celery):
    full = sent(app, "a prompt", submitter="nightly", retries=2, group="g")
    full["properties"]["priority"] = 7
    full["properties"]["correlation_id"] = "another"
    request = received(app, orjson.dumps(slim(full, "writer")))
    assert request.delivery_info["priority"] == 7
    assert request.correlation_id == "another"
    kept = {"submitter": "nightly", "retries": 2, "group": "g"}
    assert kept.items() <= request.request_dict.items()
    assert "origin" not in request.request_dict
    elsewhere = slim(full, "nobody")["properties"]["delivery_info"]
    assert elsewhere == {"routing_key": "writer"}


def test_the_serializer_writes_plain_json():
    assert loads('[["汉"],{},{}]', "application/json", "utf-8") == [["汉"], {}, {}]


def test_a_description_says_how_much_and_not_what():
    kwargs = {"model": "m", "n": 2, "stop": "key"}
    args, named = shown(COMPLETE, ("secret",), kwargs)
    assert args == "(<prompt: 6 characters>,)"
    assert named == "{'model': 'm', 'n': 2}"
    chat = [{"role": "user", "content": "secret"}]
    assert shown(CHAT, (), {"messages": chat}) == ("(<messages: 6 characters>,)", "{}")
