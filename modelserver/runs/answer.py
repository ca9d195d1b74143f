"""What a caller gets for each row, with all that an engine said of it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelserver.messaging.answers import CUT_OFF
from modelserver.values import Json


@dataclass(frozen=True, slots=True)
class PromptAnswer:
    """One row's answer, or its error."""

    #: The row's place among the prompts, from 0.
    number: int
    #: What was asked: a prompt, messages or an object, as it was given.
    prompt: Any
    #: The text, "" where there is none.
    text: str = ""
    #: An instance of the class that ``response_format`` names.
    value: Any = None
    #: Why the text ends: "stop", "length", ...; "" if unknown.
    finish_reason: str = ""
    #: Tokens, as the engine counts them.
    usage: Mapping[str, Json] = field(default_factory=dict)
    #: The engine that answered.
    engine: str = ""
    #: How long it took on that engine.
    seconds: float = 0.0
    #: How often engines were asked, until one answered.
    attempts: int = 1
    #: The engine's whole answer.
    body: Mapping[str, Json] = field(default_factory=dict)
    #: Whether it is the answer to an identical prompt, which was asked before.
    cached: bool = False
    #: Why there is no answer, None where there is one.
    error: Exception | None = None

    @property
    def cut_off(self) -> bool:
        """Whether ``max_tokens`` or the context ended the text."""
        return self.finish_reason == CUT_OFF

    @property
    def texts(self) -> list[str]:
        """The texts of all choices, with ``n`` above 1."""
        return [text_of(choice) for choice in self.body.get("choices") or ()]


def answer_of(
    number: int, prompt: Any, body: Mapping[str, Any], is_cached: bool = False
) -> PromptAnswer:
    """An answer from an engine's response body.

    >>> body = {"choices": [{"text": "hi", "finish_reason": "stop"}]}
    >>> answer_of(0, "say hi", body).text
    'hi'
    """
    choices: Sequence[Mapping[str, Any]] = body.get("choices") or ({},)
    first = choices[0]
    return PromptAnswer(
        number,
        prompt,
        text_of(first),
        finish_reason=reason_of(first),
        usage=body.get("usage") or {},
        engine=str(body.get("engine") or ""),
        seconds=float(body.get("seconds") or 0.0),
        attempts=int(body.get("attempts") or 1),
        body=body,
        cached=is_cached,
    )


def text_of(choice: Mapping[str, Any]) -> str:
    """The text of one choice of a completion or of a chat."""
    if "text" in choice:
        return str(choice["text"] or "")
    return str((choice.get("message") or {}).get("content") or "")


def reason_of(choice: Mapping[str, Any]) -> str:
    """Why one choice ends."""
    reason = choice.get("finish_reason")
    if isinstance(reason, Mapping):
        reason = reason.get("type")
    return str(reason or "")
