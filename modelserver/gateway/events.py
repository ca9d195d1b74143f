"""A stream as server-sent events: OpenAI's chunks, and what keeps it open. Pure."""

import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from modelserver.engine_protocol import RESPONSE_ENDS
from modelserver.gateway.bodies import Asked, add_usages, name_response
from modelserver.gateway.calling import Told
from modelserver.gateway.faults import Fault, Refused
from modelserver.messaging.wire import CHAT

#: The last event of every stream.
DONE = b"data: [DONE]\n\n"
#: A line that clients skip, for proxies that close what is silent.
KEEP_ALIVE = b": still generating\n\n"
#: Said where an answer is stored of which only some parts can be told.
_PARTS_GONE = Fault(
    409,
    "the parts of this answer are not kept any more, or are another stream's: the "
    "same was asked for before with this Idempotency-Key; ask without stream, or with "
    "another key",
    code="parts_gone",
)


#: The event that ends a response, unless it is told by its status to be another.
_COMPLETED = "response.completed"
#: The events with which a response is whole.
_LAST = (_COMPLETED, "response.incomplete")


def find_response(told: Told) -> dict[str, Any] | None:
    """The whole response, if a stream of one ends with what has come."""
    found = (part["response"] for part in told.parts if part.get("type") in _LAST)
    return next(found, None)


def open_events(asked: Asked) -> "Events | ResponseEvents":
    """What makes the events of a stream."""
    return ResponseEvents(asked) if asked.is_response else Events(asked)


@dataclass(slots=True)
class Events:
    """Makes the events of one stream of a completion or a chat."""

    asked: Asked
    id: str = field(init=False)
    created: int = field(default_factory=lambda: int(time.time()))
    #: By call: the tokens that it used.
    _usages: dict[int, dict[str, Any]] = field(default_factory=dict)
    #: What an engine says beside the tokens in its last part.
    _beside: dict[str, Any] = field(default_factory=dict)
    #: By call: parts of an answer that was not told to its end.
    _parts: Counter[int] = field(default_factory=Counter)
    #: By call: its choices that were told to their ends.
    _ended: defaultdict[int, set[int]] = field(default_factory=lambda: defaultdict(set))

    def __post_init__(self) -> None:
        head = "chatcmpl" if self._is_chat else "cmpl"
        self.id = f"{head}-{uuid.uuid4().hex}"

    @property
    def _is_chat(self) -> bool:
        return self.asked.calls[0].task == CHAT

    @property
    def usages(self) -> dict[int, dict[str, Any]]:
        """The tokens of each call, about a part each where it broke off."""
        found = {
            place: {"completion_tokens": parts} for place, parts in self._parts.items()
        }
        return found | self._usages

    def of(self, told: Told) -> Iterator[bytes]:
        """The events of what has come. Raises Refused."""
        for part in told.parts:
            usage = part.pop("usage", None)
            if usage:
                self._usages[told.place] = usage
            if part.get("choices"):
                yield self._told(part, told.place)
            else:
                self._beside |= part
        if told.body is not None:
            yield from self._answered(told.place, told.body)

    def _told(self, part: dict[str, Any], place: int) -> bytes:
        self._parts[place] += 1
        choices = part["choices"]
        ended = {each.get("index", 0) for each in choices if each.get("finish_reason")}
        self._ended[place] |= ended
        return self._event(self._placed(part, place))

    def _answered(self, place: int, body: Mapping[str, Any]) -> Iterator[bytes]:
        """What was not told of a whole answer, which a repeat may find."""
        if body.get("usage"):
            self._usages[place] = body["usage"]
        choices = body.get("choices") or []
        if not self._parts[place]:
            yield from (self._told(_as_part(each), place) for each in choices)
        elif any(
            each.get("finish_reason") and each["index"] not in self._ended[place]
            for each in choices
        ):
            raise Refused(_PARTS_GONE)

    def end(self) -> Iterator[bytes]:
        """The events that close a stream."""
        if self.asked.stream_usage:
            usage = add_usages(list(self._usages.values()))
            yield self._event({**self._beside, "choices": [], "usage": usage})
        yield DONE

    def failed(self, fault: Fault) -> bytes:
        """The event of an error after the stream has begun."""
        return b"data: " + orjson.dumps(fault.body()) + b"\n\n"

    def _placed(self, part: dict[str, Any], place: int) -> dict[str, Any]:
        """The part with each choice's index over all calls."""
        if len(self.asked.calls) == 1:
            return part
        first = place * self.asked.each
        choices = [
            {**choice, "index": first + choice.get("index", 0)}
            for choice in part["choices"]
        ]
        return {**part, "choices": choices}

    def _event(self, part: dict[str, Any]) -> bytes:
        head = {
            "id": self.id,
            "object": "chat.completion.chunk" if self._is_chat else "text_completion",
            "created": self.created,
            "model": self.asked.model,
        }
        if self.asked.stream_usage:
            part = {"usage": None, **part}
        return b"data: " + orjson.dumps(head | part) + b"\n\n"


def _as_part(choice: Mapping[str, Any]) -> dict[str, Any]:
    """A part that is a whole choice."""
    told = dict(choice)
    if message := told.pop("message", None):
        told["delta"] = {**message}
        if calls := message.get("tool_calls"):
            placed = [{"index": place, **call} for place, call in enumerate(calls)]
            told["delta"]["tool_calls"] = placed
    return {"choices": [told]}


@dataclass(slots=True)
class ResponseEvents:
    """Makes the events of one stream of /v1/responses: the engine's, with our names."""

    asked: Asked
    #: The tokens used, as the answer's end says.
    _usage: dict[str, Any] | None = None
    #: Parts of an answer that was not told to its end.
    _parts: int = 0
    #: Whether the answer was told to its end.
    _is_ended: bool = False
    #: The number of the next event.
    _next: int = 0

    @property
    def usages(self) -> dict[int, dict[str, Any]]:
        """The tokens used, about a part each where the answer broke off."""
        return {0: self._usage or {"output_tokens": self._parts}}

    def of(self, told: Told) -> Iterator[bytes]:
        """The events of what has come. Raises Refused."""
        for part in told.parts:
            self._is_ended |= part["type"] in RESPONSE_ENDS
            self._parts += part["type"].endswith(".delta")
            if response := part.get("response"):
                part["response"] = response = name_response(self.asked, response)
                part["type"] = _type_of(part["type"], response)
                self._usage = response.get("usage")
            yield self._event(part)
        if told.body and "output" in told.body and not self._is_ended:
            raise Refused(_PARTS_GONE)

    def end(self) -> Iterator[bytes]:
        """Nothing: the last event of the answer closes the stream."""
        return iter(())

    def failed(self, fault: Fault) -> bytes:
        """The event of an error, in both forms that clients look for."""
        error = fault.body()["error"]
        return self._event({**error, "type": "error", "error": error})

    def _event(self, part: dict[str, Any]) -> bytes:
        numbered = {**part, "sequence_number": self._next}
        self._next += 1
        head = f"event: {part['type']}\ndata: ".encode()
        return head + orjson.dumps(numbered) + b"\n\n"


def _type_of(kind: str, response: Mapping[str, Any]) -> str:
    """An event's type; vLLM says that a response is completed where it is not."""
    if kind == _COMPLETED and response.get("status") in ("incomplete", "failed"):
        return f"response.{response['status']}"
    return kind
