"""What a request must be, what it becomes for an engine, and what its answer means.

Pure. A client builds a request to find at once what is wrong with it; the worker builds
the same again to execute it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from modelserver.engine_client import (
    CHAT_PATH,
    COMPLETIONS_PATH,
    EMBEDDINGS_PATH,
    EngineFault,
)
from modelserver.errors import RequestError
from modelserver.messaging.wire import CHAT, COMPLETE, EMBED, Vector
from modelserver.values import Kind

#: An answer of at most so many tokens may have no text: an end token, half a character.
SILENT_TOKENS = 2
#: Value of ``deadline_from``: a deadline's seconds count from when the request is sent.
FROM_SUBMISSION = "submission"
#: Value of ``deadline_from``: they count from when its execution starts.
FROM_START = "start"


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One request in an engine's terms, but for the model's own defaults."""

    #: The task's name.
    task: str
    #: The path on the engine.
    path: str
    #: What the engine is sent, without model.
    body: Mapping[str, Any]
    #: None where the caller left it to the fleet.
    model: str | None = None
    #: Whether the caller gets the engine's response body.
    raw: bool = False
    #: Seconds within which the answer is due.
    deadline: float | None = None
    #: Whether the caller gets a list.
    many: bool = False

    @property
    def kind(self) -> Kind:
        """What kind of model this needs."""
        return Kind.EMBEDDING if self.task == EMBED else Kind.COMPLETION

    def body_for(self, model: str, sampling: Mapping[str, Any]) -> dict[str, Any]:
        """The engine's request: the model's defaults, then the caller's own."""
        return {**sampling, **self.body, "model": model}


#: By task: the name of its first argument, and the path on the engine.
_TASKS = {
    COMPLETE: ("prompt", COMPLETIONS_PATH),
    CHAT: ("messages", CHAT_PATH),
    EMBED: ("input", EMBEDDINGS_PATH),
}


def build(
    task: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> InferenceRequest:
    """Read a call's arguments. Raises RequestError in the caller's terms."""
    subject, path = _TASKS[task]
    short = task.rpartition(".")[2]
    given = dict(kwargs)
    if len(args) > 1:
        raise RequestError(
            f"{short}() takes one positional argument, the {subject}, and got "
            f"{len(args)}; pass the others by name"
        )
    if args and subject in given:
        raise RequestError(
            f"{short}() got its {subject} twice, by position and by name; pass it once"
        )
    if not args and subject not in given:
        raise RequestError(
            f"{short}() needs its {subject}; pass it as the first argument"
        )
    content = args[0] if args else given.pop(subject)
    _CHECKS[task](content)
    return _with_options(task, path, {subject: content}, given)


def _with_options(
    task: str, path: str, body: dict[str, Any], given: dict[str, Any]
) -> InferenceRequest:
    model = given.pop("model", None)
    if model is not None and not (isinstance(model, str) and model):
        raise RequestError(f"model must be a model's name, not {model!r}")
    raw = given.pop("raw", False)
    deadline = given.pop("deadline", None)
    if deadline is not None and not (_is_number(deadline) and deadline > 0):
        raise RequestError(
            f"deadline must be a number of seconds above 0, not {deadline!r}"
        )
    since = given.pop("deadline_from", FROM_SUBMISSION)
    if since not in (FROM_SUBMISSION, FROM_START):
        raise RequestError(
            f'deadline_from must be "{FROM_SUBMISSION}" or "{FROM_START}", '
            f"not {since!r}"
        )
    _check_parameters(given)
    content = next(iter(body.values()))
    many = (given.get("n") or 1) > 1 or (task == EMBED and not isinstance(content, str))
    request = InferenceRequest(
        task, path, body | given, model, bool(raw), deadline, many
    )
    _check_json(request.body)
    return request


def _check_prompt(prompt: Any) -> None:
    if isinstance(prompt, (list, tuple)):
        raise RequestError(
            f"prompt must be one text, not a {type(prompt).__name__}; send one request "
            "for each prompt: group(complete.s(p) for p in prompts)"
        )
    if not isinstance(prompt, str):
        raise RequestError(f"prompt must be text, not {type(prompt).__name__}")
    if not prompt:
        raise RequestError("prompt is empty; an engine needs at least one character")


def _check_messages(messages: Any) -> None:
    if not isinstance(messages, (list, tuple)) or not messages:
        what = "an empty list" if messages == [] else type(messages).__name__
        raise RequestError(
            'messages must be a list like [{"role": "user", "content": "hi"}], '
            f"not {what}"
        )
    for place, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise RequestError(
                f"messages[{place}] must be an object with role and content, not "
                f"{type(message).__name__}"
            )
        role = message.get("role")
        if not isinstance(role, str) or not role:
            raise RequestError(
                f'messages[{place}] has no role; say "system", "user" or "assistant"'
            )
        if "content" not in message and "tool_calls" not in message:
            raise RequestError(
                f"messages[{place}] has no content; give it a text as content"
            )


def _check_texts(texts: Any) -> None:
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, (list, tuple)):
        raise RequestError(
            f"embed() takes a text or a list of texts, not {type(texts).__name__}"
        )
    if not texts:
        raise RequestError("embed() got an empty list; there is nothing to embed")
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise RequestError(f"text {place} must be text, not {type(text).__name__}")
        if not text:
            raise RequestError(f"text {place} is empty; leave it out")


_CHECKS: Mapping[str, Callable[[Any], None]] = {
    COMPLETE: _check_prompt,
    CHAT: _check_messages,
    EMBED: _check_texts,
}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_parameters(given: Mapping[str, Any]) -> None:
    if given.get("stream"):
        raise RequestError("stream is not offered: a task has one result; leave it out")
    for name in ("n", "max_tokens", "max_completion_tokens"):
        value = given.get(name)
        if value is not None and not (_is_whole(value) and value >= 1):
            raise RequestError(f"{name} must be a whole number from 1, not {value!r}")
    for name, most in (("temperature", None), ("top_p", 1)):
        value = given.get(name)
        if value is None:
            continue
        if not _is_number(value) or value < 0 or (most and value > most):
            upto = f" to {most}" if most else ""
            raise RequestError(f"{name} must be a number from 0{upto}, not {value!r}")
    form = given.get("response_format")
    # SGLang answers 500 to this, which would be tried again and again.
    if form is not None and not isinstance(form, Mapping):
        raise RequestError(
            'response_format must be an object like {"type": "json_object"}, not '
            f"{type(form).__name__}"
        )


def _check_json(body: Mapping[str, Any]) -> None:
    for name, value in body.items():
        try:
            orjson.dumps(value)
        except TypeError as error:
            raise RequestError(
                f"{name} cannot be sent as JSON ({error}); pass text, numbers, "
                "booleans, lists and objects"
            ) from error


def check_context(request: InferenceRequest, context_length: int | None) -> None:
    """Refuse what cannot fit whatever the tokenizer says. Raises RequestError."""
    asked = request.body.get("max_tokens") or request.body.get("max_completion_tokens")
    if context_length and asked and asked >= context_length:
        raise RequestError(
            f"max_tokens {asked} leaves no room for the prompt: the context of "
            f'"{request.model}" is {context_length} tokens; ask for fewer'
        )


def describe(request: InferenceRequest) -> tuple[str, str]:
    """A request without its content, for logs and events: (args, kwargs)."""
    subject = _TASKS[request.task][0]
    content = request.body[subject]
    size = len(content) if isinstance(content, str) else len(orjson.dumps(content))
    shown: dict[str, Any] = {
        key: value
        for key, value in request.body.items()
        if key != subject and isinstance(value, (int, float))
    }
    if request.model:
        shown["model"] = request.model
    return f"(<{subject}: {size} characters>,)", repr(shown)


def answer(request: InferenceRequest, response: dict[str, Any]) -> Any:
    """What the caller gets from an engine's response body.

    Raises EngineFault where the body is not an answer to this request.
    """
    read = _vectors if request.task == EMBED else _texts
    try:
        values = read(request, response)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise EngineFault(
            f"answered 200 with a body of the wrong shape ({error!r})"
        ) from error
    if not values or len(values) != _expected(request):
        raise EngineFault(
            f"answered 200 with {len(values)} answers for {_expected(request)}"
        )
    if request.raw:
        return response
    return values if request.many else values[0]


def _expected(request: InferenceRequest) -> int:
    if request.task != EMBED:
        return int(request.body.get("n") or 1)
    content = request.body["input"]
    return 1 if isinstance(content, str) else len(content)


def _texts(request: InferenceRequest, response: dict[str, Any]) -> list[Any]:
    choices = sorted(response["choices"], key=lambda choice: choice.get("index", 0))
    if request.task == COMPLETE:
        texts = [_text(choice["text"]) for choice in choices]
    else:
        texts = [choice["message"]["content"] for choice in choices]
    if not any(texts) and not _may_be_empty(response, choices):
        raise ValueError("an empty answer of many tokens, or of none")
    return texts


def _may_be_empty(response: dict[str, Any], choices: list[dict[str, Any]]) -> bool:
    """Whether an answer without text is sound: a tool's call, or only an end token."""
    said = ("tool_calls", "reasoning_content", "refusal")
    if any(choice.get("message", {}).get(name) for choice in choices for name in said):
        return True
    generated = tokens(response)[1]
    return generated is None or 0 < generated <= SILENT_TOKENS * len(choices)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a text of type {type(value).__name__}")
    return value


def _vectors(request: InferenceRequest, response: dict[str, Any]) -> list[Any]:
    entries = sorted(response["data"], key=lambda entry: entry.get("index", 0))
    vectors = [entry["embedding"] for entry in entries]
    if not all(vectors):
        raise ValueError("an empty vector")
    if request.raw:
        return vectors
    return [
        Vector(vector) if isinstance(vector, str) else Vector.of(vector)
        for vector in vectors
    ]


def tokens(response: Mapping[str, Any]) -> tuple[int, int | None]:
    """Prompt and completion tokens as the response says; (0, None) if it does not."""
    usage = response.get("usage")
    if not isinstance(usage, Mapping):
        return 0, None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return (
        prompt if isinstance(prompt, int) else 0,
        completion if isinstance(completion, int) else None,
    )


def with_model(request: InferenceRequest, model: str) -> InferenceRequest:
    """The request with its model decided."""
    return replace(request, model=model)
