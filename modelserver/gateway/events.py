"""A stream as server-sent events: OpenAI's chunks, and what keeps it open. Pure."""

import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from modelserver.gateway.bodies import Asked, add_usages
from modelserver.gateway.calling import Told
from modelserver.gateway.faults import Fault
from modelserver.messaging.wire import CHAT

#: The last event of every stream.
DONE = b"data: [DONE]\n\n"
#: A line that clients skip, for proxies that close what is silent.
KEEP_ALIVE = b": still generating\n\n"


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

    def __post_init__(self) -> None:
        head = "chatcmpl" if self._is_chat else "cmpl"
        self.id = f"{head}-{uuid.uuid4().hex}"

    @property
    def _is_chat(self) -> bool:
        return self.asked.calls[0].task == CHAT

    @property
    def usages(self) -> list[dict[str, Any]]:
        """The tokens of each call, about a part each where it broke off."""
        broken = self._parts.keys() - self._usages.keys()
        found = [{"completion_tokens": self._parts[place]} for place in broken]
        return [*self._usages.values(), *found]

    def of(self, told: Told) -> Iterator[bytes]:
        """The events of what has come."""
        for part in told.parts:
            usage = part.pop("usage", None)
            if usage:
                self._usages[told.place] = usage
            if part.get("choices"):
                self._parts[told.place] += 1
                yield self._event(self._placed(part, told.place))
            else:
                self._beside |= part
        if told.body is not None and told.body.get("usage"):
            self._usages[told.place] = told.body["usage"]

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


@dataclass(slots=True)
class ResponseEvents:
    """Makes the events of one stream of /v1/responses: the engine's, with our names."""

    asked: Asked
    #: The tokens used, as the answer's end says.
    _usage: dict[str, Any] | None = None
    #: Parts of an answer that was not told to its end.
    _parts: int = 0
    #: The number of the next event.
    _next: int = 0

    @property
    def usages(self) -> list[dict[str, Any]]:
        """The tokens used, about a part each where the answer broke off."""
        return [self._usage or {"output_tokens": self._parts}]

    def of(self, told: Told) -> Iterator[bytes]:
        """The events of what has come."""
        for part in told.parts:
            self._parts += part["type"].endswith(".delta")
            if response := part.get("response"):
                response["model"] = self.asked.model
                self._usage = response.get("usage")
            yield self._event(part)

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
