"""Reads a pulled message, or says why nobody can: before anything is done with it.

Whatever a plain producer may have written is looked at here, so that only this message
suffers. What is read is written as kombu and Celery expect it.
"""

import math
from collections.abc import Collection, Container, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from celery.exceptions import NotRegistered
from celery.worker.strategy import proto1_to_proto2
from kombu.exceptions import ContentDisallowed
from kombu.utils.json import loads as kombu_loads

from modelserver.errors import RequestError
from modelserver.messaging.transport import Message
from modelserver.store.batch import DEADLINE, Delivery


@dataclass(frozen=True, slots=True)
class UnreadableMessage:
    """A message that nobody can execute."""

    #: The id of its task, "" where it has none: then nobody waits.
    task: str
    #: What its caller gets.
    error: Exception
    #: Its headers, and what is to be done with its answer, as far as they can be read.
    request: Mapping[str, Any]


class _UnfitError(Exception):
    """What is wrong with a message."""


def read(
    delivery: Delivery,
    queue: str,
    channel: Any,
    tasks: Container[str],
    accept: Collection[str],
) -> Message | UnreadableMessage:
    """The message with its body decoded, its headers such as Celery's tracer needs."""
    envelope: dict[str, Any] = {}
    embedded: Mapping[str, Any] = {}
    try:
        envelope = _envelope(delivery, queue)
        message = Message(envelope, channel=channel)
        message.accept = accept
        payload = _payload(message)
        if "task" not in message.headers:
            payload = _of_protocol_1(message, payload)
        _check_body(payload)
        embedded = payload[2] or {}
        _check_headers(message.headers)
        if message.headers["task"] not in tasks:
            raise NotRegistered(message.headers["task"])
    except NotRegistered as error:
        request = _headers(envelope, embedded)
        return UnreadableMessage(_find_id(envelope), error, request)
    except Exception as error:
        # Of any kind: compression, character sets and nesting have errors of their own.
        fact = str(error) if isinstance(error, _UnfitError) else repr(error)[:300]
        refusal = RequestError(f"the message cannot be executed: {fact}")
        found = envelope or _leniently(delivery.raw)
        return UnreadableMessage(_find_id(found), refusal, _headers(found, embedded))
    return message


def _envelope(delivery: Delivery, queue: str) -> dict[str, Any]:
    try:
        envelope = orjson.loads(delivery.raw)
    except ValueError as error:
        raise _UnfitError(f"it is no JSON in UTF-8 ({error})") from None
    if not isinstance(envelope, dict):
        raise _UnfitError("it is no JSON object")
    for part in ("headers", "properties"):
        if not isinstance(envelope.get(part), dict):
            envelope[part] = {}
    properties = envelope["properties"]
    info = properties.get("delivery_info")
    info = info if isinstance(info, dict) else {}
    if not isinstance(info.get("routing_key"), str):
        info["routing_key"] = queue
    properties["delivery_info"] = info
    properties["delivery_tag"] = delivery.tag
    return envelope


def _leniently(raw: bytes) -> dict[str, Any]:
    """An envelope that only lone surrogates or NaN keep from being JSON."""
    try:
        envelope = kombu_loads(raw.decode(errors="replace"))
    except (ValueError, RecursionError):
        return {}
    return envelope if isinstance(envelope, dict) else {}


def _payload(message: Message) -> Any:
    if message.errors:
        raise _UnfitError(f"its body cannot be decompressed ({message.errors[0][1]!r})")
    if "body" not in message.properties and message.body is None:
        raise _UnfitError("it has no body")
    try:
        payload = message.payload
    except ContentDisallowed:
        raise _UnfitError(
            f"its body is of type {message.content_type!r}; send it with "
            'serializer="json"'
        ) from None
    except Exception as error:
        raise _UnfitError(f"its body is no JSON ({error})") from None
    # kombu decodes a body again that is empty in Python's eyes.
    message._decoded_cache = payload
    return payload


def _of_protocol_1(message: Message, body: Any) -> Any:
    """The body of protocol 2, which the headers become as well."""
    if not isinstance(body, dict) or "task" not in body:
        raise _UnfitError("it is no task: neither its headers nor its body name one")
    parts, headers, _, _ = proto1_to_proto2(message, body)
    kept = ("args", "kwargs", "headers", "callbacks", "errbacks", "chord", "taskset")
    message.headers = {
        **message.headers,
        **{name: value for name, value in headers.items() if name not in kept},
    }
    message._decoded_cache = list(parts)
    return message._decoded_cache


def _check_body(body: Any) -> None:
    if not isinstance(body, (list, tuple)) or len(body) != 3:
        raise _UnfitError("its body is not [args, kwargs, the rest]")
    args, kwargs, rest = body
    if not isinstance(args, (list, tuple)):
        raise _UnfitError(f"its args are no list but {type(args).__name__}")
    if not isinstance(kwargs, dict):
        raise _UnfitError(f"its kwargs are no object but {type(kwargs).__name__}")
    if not isinstance(rest, (dict, type(None))):
        raise _UnfitError("the third part of its body is no object")


def _check_headers(headers: dict[str, Any]) -> None:
    for name in ("id", "task"):
        value = headers.get(name)
        if not isinstance(value, str) or not value:
            raise _UnfitError(f"its {name} is {value!r}, and no text")
    for name in ("eta", "expires"):
        if (value := headers.get(name)) is None:
            continue
        try:
            datetime.fromisoformat(value)
        except (TypeError, ValueError):
            raise _UnfitError(
                f"its {name} is {value!r}, and no time in ISO format"
            ) from None
    due = headers.get(DEADLINE)
    if due is not None and not _is_number(due):
        raise _UnfitError(f"its {DEADLINE} is {due!r}, and no number")
    if not isinstance(headers.get("retries") or 0, int):
        raise _UnfitError(f"its retries are {headers['retries']!r}, and no number")
    limits = headers.get("timelimit") or (None, None)
    if (
        not isinstance(limits, (list, tuple))
        or len(limits) != 2
        or not all(limit is None or _is_number(limit) for limit in limits)
    ):
        raise _UnfitError(f"its timelimit is {limits!r}, and not two numbers")


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def _find_id(envelope: Mapping[str, Any]) -> str:
    """The id that its caller waits for, "" if there is none."""
    headers, properties = envelope.get("headers"), envelope.get("properties")
    places = (headers, properties)
    for place, name in zip(places, ("id", "correlation_id"), strict=True):
        value = place.get(name) if isinstance(place, dict) else None
        if isinstance(value, (str, int)) and not isinstance(value, bool):
            return str(value).encode(errors="replace").decode()
    return ""


def _headers(
    envelope: Mapping[str, Any], embedded: Mapping[str, Any]
) -> Mapping[str, Any]:
    headers = envelope.get("headers")
    return {**(headers if isinstance(headers, dict) else {}), **embedded}
