"""An answer that comes in parts: what travels of each, what they make. Pure.

A part is an engine's chunk of a stream without what is the same in all of them. Several
engines may have given the parts of one answer: where one dies, the next goes on from
the text that is there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from modelserver.messaging.answers import BROKEN_OFF, THOUGHTS
from modelserver.messaging.requests import InferenceRequest
from modelserver.messaging.wire import CHAT

#: What is the same in all chunks of a stream; the gateway says it anew.
_COMMON = frozenset({"id", "object", "created", "model"})
#: Parameters with which an answer cannot go on from its text: what is generated depends
#: on more than the text, or more than the text is asked for.
_NOT_FROM_TEXT = (
    *("best_of", "continue_final_message", "echo", "ebnf", "functions", "json_schema"),
    *("logprobs", "prompt_logprobs", "regex", "response_format", "structured_outputs"),
    *("suffix", "tools", "top_logprobs", "use_beam_search"),
)


def slim(chunk: Mapping[str, Any]) -> dict[str, Any]:
    """What travels of an engine's chunk.

    >>> slim({"id": "a", "model": "m", "choices": []})
    {'choices': []}
    """
    return {name: value for name, value in chunk.items() if name not in _COMMON}


def says_broken_off(part: Mapping[str, Any]) -> str:
    """The reason of a generation that did not come to its end, "" for none."""
    for choice in part.get("choices") or ():
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason.lower() in BROKEN_OFF:
            return reason
    return ""


@dataclass(slots=True)
class Assembly:
    """What the parts of an answer have made so far."""

    #: What an engine is asked besides for an answer in parts.
    IN_PARTS: ClassVar[Mapping[str, Any]] = {
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    is_chat: bool
    #: By index: a choice in the form that a whole answer has it.
    choices: dict[int, dict[str, Any]] = field(default_factory=dict)
    #: Tokens used, as the last engine says.
    usage: dict[str, Any] = field(default_factory=dict)
    #: Fields of the first part that are neither choices nor usage.
    rest: dict[str, Any] = field(default_factory=dict)
    #: Tokens of the answer that earlier engines gave.
    tokens_before: int = 0
    #: The prompt's tokens, as the first engine said that said any.
    prompt_tokens: int | None = None
    #: Parts with something in them since an engine began.
    parts: int = 0

    def take(self, chunk: Mapping[str, Any], goes_on: bool) -> list[dict[str, Any]]:
        """Take in an engine's next chunk; what is told of it.

        ``goes_on``: it is of an engine that goes on where another died. Raises
        LookupError, TypeError, AttributeError.
        """
        part: dict[str, Any] | None = slim(chunk)
        if goes_on and part is not None:
            part = without_role(part)
        if part is None:
            return []
        self.add(part)
        usage = part.pop("usage", None)
        if usage and not part.get("choices"):
            part["usage"] = self.usage
        return [part] if part.get("choices") or part.get("usage") else []

    def add(self, part: Mapping[str, Any]) -> None:
        """Take in a part that was told. Raises as ``take``."""
        for choice in part.get("choices") or ():
            self._add_choice(choice)
        if part.get("usage"):
            self._add_usage(part["usage"])
        for name, value in part.items():
            if name not in ("choices", "usage"):
                self.rest.setdefault(name, value)

    def _add_choice(self, choice: Mapping[str, Any]) -> None:
        index = choice.get("index", 0)
        whole = self.choices.setdefault(index, {"index": index})
        for name, value in choice.items():
            if name == "delta":
                message = whole.setdefault("message", {"role": "assistant"})
                self.parts += _add_delta(message, value or {})
            elif name == "text":
                whole["text"] = whole.get("text", "") + (value or "")
                self.parts += bool(value)
            elif name == "logprobs" and value is not None:
                whole["logprobs"] = _joined(whole.get("logprobs"), value)
            elif value is not None or name not in whole:
                whole[name] = value

    def _add_usage(self, usage: Mapping[str, Any]) -> None:
        self.usage = dict(usage)
        if self.prompt_tokens is None and isinstance(usage.get("prompt_tokens"), int):
            # An engine that goes on counts what others gave to its prompt.
            self.prompt_tokens = max(0, usage["prompt_tokens"] - self.tokens_before)
        if self.tokens_before:
            completion = self.tokens_before + (usage.get("completion_tokens") or 0)
            prompt = self.prompt_tokens or 0
            self.usage |= {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
            }

    @property
    def text(self) -> str:
        """The text so far of an answer with one choice."""
        whole = self.choices.get(0, {})
        said = whole.get("message", {}).get("content") if self.is_chat else None
        return str(said or whole.get("text") or "")

    @property
    def is_begun(self) -> bool:
        """Whether there is anything that another engine would have to go on from."""
        return any(
            whole.get("text") or (len(whole.get("message", {})) > 1 and self.parts)
            for whole in self.choices.values()
        )

    @property
    def is_ended(self) -> bool:
        """Whether every choice has come to its end."""
        return all(choice.get("finish_reason") for choice in self.choices.values())

    def find_rest(
        self, request: InferenceRequest, body: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """What another engine is sent to go on from here, None where none can."""
        if not self.is_from_text(request):
            return None
        self.go_on()
        return continued(request, body, self)

    def is_from_text(self, request: InferenceRequest) -> bool:
        """Whether another engine can go on from the text alone."""
        if (request.body.get("n") or 1) > 1 or set(self.choices) - {0}:
            return False
        if any(request.body.get(name) for name in _NOT_FROM_TEXT):
            return False
        if not self.is_chat:
            return isinstance(request.body["prompt"], str)
        message = self.choices.get(0, {}).get("message", {})
        return not any(message.get(name) for name in (*THOUGHTS, "tool_calls"))

    @property
    def own_tokens(self) -> tuple[int, int]:
        """Tokens of prompt and answer for the engine that went on last."""
        prompt = (self.usage.get("prompt_tokens") or 0) + self.tokens_before
        completion = self.usage.get("completion_tokens") or 0
        return prompt, max(0, completion - self.tokens_before)

    def go_on(self) -> None:
        """Another engine goes on from here."""
        given = self.usage.get("completion_tokens")
        if not self.tokens_before or given is None:
            given = self.tokens_before + max(given or 0, self.parts)
        self.tokens_before, self.parts, self.usage = given, 0, {}

    def body(self, model: str) -> dict[str, Any]:
        """The whole answer, as an engine gives it that is asked for no parts."""
        found = {
            "object": "chat.completion" if self.is_chat else "text_completion",
            "model": model,
            **self.rest,
            "choices": [self.choices[index] for index in sorted(self.choices)],
        }
        for choice in found["choices"]:
            choice.setdefault("finish_reason", None)
            if self.is_chat:
                choice.setdefault("message", {"role": "assistant"})
                choice["message"].setdefault("content", None)
        return found | ({"usage": self.usage} if self.usage else {})


def continued(
    request: InferenceRequest, body: Mapping[str, Any], sofar: Assembly
) -> dict[str, Any]:
    """What another engine is sent to go on from the text so far.

    >>> from modelserver.messaging.wire import COMPLETE
    >>> request = InferenceRequest(COMPLETE, "/v1/completions", {"prompt": "a"})
    >>> sofar = Assembly(is_chat=False)
    >>> sofar.add({"choices": [{"index": 0, "text": "b"}]})
    >>> continued(request, {"prompt": "a", "max_tokens": 5}, sofar)
    {'prompt': 'ab', 'max_tokens': 4}
    """
    sent = dict(body)
    if request.task == CHAT:
        said = {"role": "assistant", "content": sofar.text}
        sent["messages"] = [*body["messages"], said]
        sent |= {"add_generation_prompt": False, "continue_final_message": True}
    else:
        sent["prompt"] = body["prompt"] + sofar.text
    done = sofar.tokens_before + sofar.parts
    for name in ("max_tokens", "max_completion_tokens"):
        if sent.get(name):
            sent[name] = max(1, sent[name] - done)
    return sent


def without_role(part: dict[str, Any]) -> dict[str, Any] | None:
    """A part of an engine that goes on; None for its greeting, said before."""
    kept = []
    for choice in part.get("choices") or ():
        delta = choice.get("delta")
        if isinstance(delta, Mapping) and "role" in delta:
            delta = {name: value for name, value in delta.items() if name != "role"}
            if not any(delta.values()) and choice.get("finish_reason") is None:
                continue
            choice = {**choice, "delta": delta}
        kept.append(choice)
    if part.get("choices") and not kept and not part.get("usage"):
        return None
    return {**part, "choices": kept}


def _add_delta(message: dict[str, Any], delta: Mapping[str, Any]) -> bool:
    """Add to a message; says whether there was anything in it."""
    found = False
    for name, value in delta.items():
        if name == "tool_calls":
            calls = message.setdefault("tool_calls", [])
            for call in value or ():
                _add_call(calls, call)
                found = True
        elif name == "role" or not isinstance(value, str):
            if value is not None or name not in message:
                message[name] = value
        else:
            message[name] = (message.get(name) or "") + value
            found = found or bool(value)
    return found


def _add_call(calls: list[dict[str, Any]], part: Mapping[str, Any]) -> None:
    index = part.get("index", len(calls))
    while len(calls) <= index:
        calls.append({"type": "function", "function": {"name": "", "arguments": ""}})
    call = calls[index]
    for name, value in part.items():
        if name == "function":
            for field_, text in (value or {}).items():
                known = call["function"].get(field_) or ""
                call["function"][field_] = known + (text or "")
        elif name != "index" and value is not None:
            call[name] = value


def _joined(known: Any, more: Mapping[str, Any]) -> dict[str, Any]:
    """Log-likelihoods one after the other, in either form that OpenAI has."""
    joined = dict(known or {})
    for name, value in more.items():
        if isinstance(value, list):
            joined[name] = [*(joined.get(name) or []), *value]
        else:
            joined.setdefault(name, value)
    return joined


def assemble(parts: Iterable[Mapping[str, Any]], is_chat: bool) -> Assembly:
    """What these parts have made."""
    found = Assembly(is_chat)
    for part in parts:
        found.add(part)
    return found
