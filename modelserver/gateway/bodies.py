"""OpenAI's request bodies as calls of tasks, and their answers as one body. Pure.

A body may hold several prompts: each is a call of its own, so that one that is at fault
or whose engine dies does not hold up the others.
"""

import base64
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelserver.engine_protocol import (
    CHAT_PATH,
    COMPLETIONS_PATH,
    DETOKENIZE_PATH,
    EMBEDDINGS_PATH,
    RESPONSES_PATH,
    TOKENIZE_PATH,
)
from modelserver.errors import RequestError
from modelserver.messaging.answers import typed
from modelserver.messaging.wire import CHAT, COMPLETE, EMBED
from modelserver.parameters import KNOWN, are_whole, is_whole

#: By path: the task, and the field that it is about.
PATHS: Mapping[str, tuple[str, str]] = {
    COMPLETIONS_PATH: (COMPLETE, "prompt"),
    CHAT_PATH: (CHAT, "messages"),
    EMBEDDINGS_PATH: (EMBED, "input"),
    RESPONSES_PATH: (CHAT, "input"),
    TOKENIZE_PATH: (COMPLETE, "prompt"),
    DETOKENIZE_PATH: (COMPLETE, "tokens"),
}
#: Those whose answers are the engine's bodies as they are.
_OTHER_PATHS = (RESPONSES_PATH, TOKENIZE_PATH, DETOKENIZE_PATH)
#: Those whose answers may come in parts.
_STREAMED = (COMPLETIONS_PATH, CHAT_PATH, RESPONSES_PATH)
#: Most prompts in one body.
MOST_PROMPTS = 2048
#: Most answers to one prompt; OpenAI's limit.
MOST_ANSWERS = 128
#: Tokens of a completion that says nothing of them: OpenAI's number, and the engines'.
COMPLETION_TOKENS = 16
#: Fields that are ours to act on and not the engine's.
_OURS = ("model", "stream", "stream_options")
#: Fields that say nothing where there are no tools.
_OF_TOOLS = ("tools", "tool_choice", "parallel_tool_calls")
#: What ``encoding_format`` may be.
FORMATS = ("float", "base64")


@dataclass(frozen=True, slots=True)
class TaskCall:
    """One task of a body."""

    task: str
    #: The prompt, the messages, or the input.
    payload: Any
    #: Arguments by name, the model among them.
    arguments: Mapping[str, Any]
    #: The task's id where a repeat of the body has the same, else "".
    id: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a body asks for."""

    model: str
    calls: tuple[TaskCall, ...]
    #: Answers to each call.
    each: int = 1
    stream: bool = False
    #: Whether a stream ends with the tokens used.
    stream_usage: bool = False
    #: Whether vectors are lists of numbers, not base64.
    as_numbers: bool = True
    #: Whether the answer says which model it is of.
    names_model: bool = True
    #: Whether a stream is one of /v1/responses.
    is_response: bool = False
    #: Fields of a response that no engine knows.
    beside: Mapping[str, Any] = field(default_factory=dict)


def read_body(path: str, body: Any) -> Asked:
    """What a body asks for. Raises RequestError for what no engine need look at.

    >>> asked = read_body("/v1/completions", {"model": "m", "prompt": ["a", "b"]})
    >>> [call.payload for call in asked.calls]
    ['a', 'b']
    """
    if not isinstance(body, Mapping):
        raise RequestError(
            f"the body must be a JSON object, not {_kind(body)}; send "
            '{"model": ..., ...}'
        )
    task, subject = PATHS[path]
    if path == TOKENIZE_PATH and body.get("messages") is not None:
        task, subject = PATHS[CHAT_PATH]
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise RequestError("model is missing; name one of those that /v1/models lists")
    if body.get(subject) is None:
        raise RequestError(f"{subject} is missing; the request is about it")
    stream, options = _stream(path, body)
    as_numbers = True
    arguments = _arguments(task, body, subject) | {"model": model, "raw": True}
    if task == EMBED:
        as_numbers = _format(body) == "float"
        arguments["encoding_format"] = "base64"
    subjects = [body[subject]]
    if path == COMPLETIONS_PATH:
        subjects = _prompts(body[subject])
        arguments.setdefault("max_tokens", COMPLETION_TOKENS)
    if path in _OTHER_PATHS:
        arguments["engine_path"] = path
    if path == RESPONSES_PATH:
        subjects = [_whole_items(body[subject])]
        arguments["extra_body"] = _stateless(arguments.get("extra_body", {}))
    each = body["n"] if is_whole(body.get("n")) else 1
    if each > MOST_ANSWERS:
        raise RequestError(f"n must be {MOST_ANSWERS} at most, not {each}")
    return Asked(
        model=model,
        calls=tuple(TaskCall(task, each_one, arguments) for each_one in subjects),
        each=max(1, each),
        stream=stream,
        stream_usage=bool(options.get("include_usage")),
        as_numbers=as_numbers,
        names_model=path not in (TOKENIZE_PATH, DETOKENIZE_PATH),
        is_response=path == RESPONSES_PATH,
        beside=_beside(body) if path == RESPONSES_PATH else {},
    )


def _arguments(task: str, body: Mapping[str, Any], subject: str) -> dict[str, Any]:
    """Parameters by name; those that we do not know are for the engine to judge."""
    known = KNOWN[task.rpartition(".")[2]]
    given = {
        name: value
        for name, value in body.items()
        if name not in (*_OURS, subject) and value is not None
    }
    if not given.get("tools", True) and given.get("tool_choice") in (None, "auto"):
        # Clients send an empty list where there are none, which vLLM refuses.
        given = {k: v for k, v in given.items() if k not in _OF_TOOLS}
    arguments = {name: value for name, value in given.items() if name in known}
    rest = {name: value for name, value in given.items() if name not in known}
    if rest:
        arguments["extra_body"] = rest
    return arguments


def _whole_items(given: Any) -> Any:
    """The items of an input, with the type of what an assistant said.

    Clients leave it out, and vLLM takes such parts of a message for a user's.
    """
    if not isinstance(given, list):
        return given
    return [
        {"type": "message", **item}
        if isinstance(item, Mapping)
        and item.get("role") == "assistant"
        and isinstance(item.get("content"), list)
        else item
        for item in given
    ]


def _stateless(rest: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a response that no engine need keep. Raises RequestError."""
    for name in ("background", "conversation"):
        if rest.get(name):
            raise RequestError(
                f"{name} is not offered; wait for the answer, and go on from it with "
                "previous_response_id"
            )
    passed = {k: v for k, v in rest.items() if k != "previous_response_id"}
    return {**passed, "store": False}


def _beside(body: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of a response beside what its engine tells."""
    store = body.get("store")
    if not (store is None or isinstance(store, bool)):
        raise RequestError(f"store must be true or false, not {store!r}")
    name = body.get("previous_response_id")
    return {"store": store is not False, "previous_response_id": name or None}


def _stream(path: str, body: Mapping[str, Any]) -> tuple[bool, Mapping[str, Any]]:
    stream, options = body.get("stream"), body.get("stream_options")
    if not (stream is None or isinstance(stream, bool)):
        raise RequestError(f"stream must be true or false, not {stream!r}")
    if options is not None and not isinstance(options, Mapping):
        raise RequestError(
            'stream_options must be an object like {"include_usage": true}, not '
            f"{_kind(options)}"
        )
    usage = (options or {}).get("include_usage")
    if not (usage is None or isinstance(usage, bool)):
        raise RequestError(
            f"stream_options must have true or false as include_usage, not {usage!r}"
        )
    if options and not stream:
        raise RequestError("stream_options is only for stream=true; leave it out")
    if stream and path not in _STREAMED:
        raise RequestError(f"stream is not for {path}; leave it out")
    return bool(stream), options or {}


def _format(body: Mapping[str, Any]) -> str:
    given = body.get("encoding_format") or "float"
    if given not in FORMATS:
        raise RequestError(
            f'encoding_format must be "float" or "base64", not {given!r}'
        )
    return str(given)


def _prompts(prompt: Any) -> list[Any]:
    """The prompts of a completion: a text, token ids, or a list of either."""
    if not isinstance(prompt, list) or (prompt and are_whole(prompt)):
        return [prompt]
    if not prompt:
        raise RequestError("prompt is an empty list; give at least one prompt")
    if len(prompt) > MOST_PROMPTS:
        raise RequestError(
            f"prompt has {len(prompt)} prompts, more than {MOST_PROMPTS}; send them in "
            "several requests"
        )
    return prompt


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


# Answers.


def join(asked: Asked, answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One body of the answers to all calls: the first one's, with all choices."""
    body = typed(answers[0])
    if asked.names_model:
        body["model"] = asked.model
    else:
        body.pop("model", None)
    if asked.is_response:
        return name_response(asked, body)
    if asked.calls[0].task == EMBED:
        body["data"] = [_vector(entry, asked.as_numbers) for entry in body["data"]]
        return body
    if len(answers) == 1:
        return body
    body["choices"] = [
        {**choice, "index": place * asked.each + number}
        for place, answer in enumerate(answers)
        for number, choice in enumerate(answer["choices"])
    ]
    usages = [answer["usage"] for answer in answers if answer.get("usage")]
    if usages:
        body["usage"] = add_usages(usages)
    return body


def name_response(asked: Asked, response: Mapping[str, Any]) -> dict[str, Any]:
    """An engine's response as the fleet's, with nothing but numbers in its usage."""
    named = {**response, "model": asked.model, **asked.beside}
    if usage := named.get("usage"):
        named["usage"] = {name: _numbers(value) for name, value in usage.items()}
    return named


def _numbers(value: Any) -> Any:
    """Details of a usage without what vLLM lists by turn, which clients refuse."""
    if not isinstance(value, Mapping):
        return value
    return {k: each for k, each in value.items() if not isinstance(each, list)}


def add_usages(usages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Tokens of several answers together, details as well.

    >>> add_usages([{"total_tokens": 2, "details": None}, {"total_tokens": 3}])
    {'total_tokens': 5, 'details': None}
    """
    total: dict[str, Any] = {}
    for usage in usages:
        for name, value in usage.items():
            known = total.get(name)
            if isinstance(value, Mapping):
                total[name] = add_usages([known or {}, value])
            elif is_whole(value):
                total[name] = (known or 0) + value
            else:
                total.setdefault(name, value)
    return total


def _vector(entry: Mapping[str, Any], as_numbers: bool) -> dict[str, Any]:
    vector = entry["embedding"]
    if as_numbers and isinstance(vector, str):
        vector = array("f", base64.b64decode(vector)).tolist()
    elif not as_numbers and isinstance(vector, list):
        vector = base64.b64encode(array("f", vector).tobytes()).decode()
    return {**entry, "embedding": vector}
