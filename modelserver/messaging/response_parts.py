"""An answer of /v1/responses that comes in parts: its events, and the whole. Pure.

Its parts are the engine's events as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from modelserver.engine_protocol import RESPONSE_ENDS
from modelserver.messaging.answers import tokens
from modelserver.messaging.requests import InferenceRequest

#: Events before anything is generated. They are told with what comes next, so that an
#: engine which dies meanwhile leaves nothing that its successor would say again.
_GREETINGS = ("response.created", "response.in_progress", "response.queued")


@dataclass(slots=True)
class ResponseAssembly:
    """What the events of an answer have told so far."""

    #: What an engine is asked besides for an answer in parts.
    IN_PARTS: ClassVar[Mapping[str, Any]] = {"stream": True}
    #: Whether there is anything that another engine would have to go on from.
    is_begun: bool = False
    #: Events with something generated in them.
    parts: int = 0
    #: The whole answer, {} before its end.
    response: dict[str, Any] = field(default_factory=dict)
    _held: list[dict[str, Any]] = field(default_factory=list)

    def take(self, chunk: Mapping[str, Any], goes_on: bool) -> list[dict[str, Any]]:
        """Take in an engine's next event; what is told by now. Raises LookupError."""
        kind = chunk["type"]
        if kind == _GREETINGS[0]:
            self._held = []
        self._held.append(dict(chunk))
        if kind in _GREETINGS:
            return []
        self.add(chunk)
        told, self._held = self._held, []
        return told

    def add(self, part: Mapping[str, Any]) -> None:
        """Take in an event that was told. Raises LookupError."""
        self.is_begun = True
        self.parts += part["type"].endswith(".delta")
        if part["type"] in RESPONSE_ENDS:
            self.response = dict(part["response"])

    @property
    def is_ended(self) -> bool:
        """Whether the whole answer is there."""
        return bool(self.response)

    @property
    def own_tokens(self) -> tuple[int, int]:
        """Tokens of prompt and answer."""
        prompt, completion = tokens(self.response)
        return prompt, completion or 0

    def find_rest(self, request: InferenceRequest, body: Mapping[str, Any]) -> None:
        """Its items have ids that no other engine would go on with."""

    def body(self, model: str) -> dict[str, Any]:
        """The whole answer, as an engine gives it that is asked for no parts."""
        return {**self.response, "model": model}
