"""The OpenAI shapes: requests in, answers and errors out; nothing is run here."""

import base64
import hashlib
import struct
from dataclasses import dataclass
from typing import Any

import orjson

from tests.engine.batching import Job

DEFAULT_MAX_TOKENS = 16
EMBEDDING_SIZE = 8

Json = dict[str, Any]


class BadRequestError(Exception):
    """The request is wrong: HTTP 400, and repeating it does not help."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A well-formed request: its texts in order, and how many answers to each."""

    kind: str
    texts: list[str]
    job: Job
    n: int = 1
    rid: str | None = None
    base64_vectors: bool = False
    stream: bool = False
    stream_usage: bool = False


def answer_text(prompt: str) -> str:
    """The text that the engine answers to a prompt, a chat's contents joined.

    >>> answer_text("hello world")
    'echo 279e2877: hello world'
    """
    digest = hashlib.blake2b(prompt.encode(), digest_size=4).hexdigest()
    return f"echo {digest}: {prompt[:60]}"


def embedding(text: str) -> list[float]:
    """The vector of a text: exact in float32, each part within -1..1."""
    digest = hashlib.blake2b(text.encode(), digest_size=EMBEDDING_SIZE).digest()
    return [byte / 128 - 1 for byte in digest]


def error_body(status: int, message: str, kind: str = "BadRequestError") -> bytes:
    """The error shape of SGLang: OpenAI's fields, not nested under `error`."""
    return orjson.dumps(
        {
            "object": "error",
            "message": message,
            "type": kind,
            "param": None,
            "code": status,
        }
    )


def parse(kind: str, raw: bytes, context_length: int) -> Ask:
    """Read a request of a kind: "completion", "chat" or "embedding".

    Raises BadRequestError.
    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequestError(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise BadRequestError("the body must be a JSON object")
    rid = body.get("rid")
    if rid is not None and not isinstance(rid, str):
        raise BadRequestError("rid must be a string")
    if kind == "embedding":
        return _embedding_ask(body, rid, context_length)
    texts = _chat_texts(body) if kind == "chat" else _texts(body.get("prompt"))
    n = _whole(body, "n", 1)
    max_tokens = _whole(body, "max_tokens", DEFAULT_MAX_TOKENS)
    max_tokens = _whole(body, "max_completion_tokens", max_tokens)
    _check_temperature(body.get("temperature"))
    prompt_tokens = _count(texts, max_tokens, context_length)
    options = body.get("stream_options") or {}
    return Ask(
        kind,
        texts,
        Job(prompt_tokens, max_tokens, n * len(texts)),
        n,
        rid,
        stream=bool(body.get("stream")),
        stream_usage=bool(options.get("include_usage")),
    )


def answer(ask: Ask, rid: str, model: str, tokens: int, created: int) -> Json:
    """The answer to a request; fewer tokens than it asked for mean an abort."""
    if ask.kind == "embedding":
        return _embeddings_answer(ask, model)
    reason = "length" if tokens >= ask.job.max_tokens else "abort"
    texts = [answer_text(text) for text in ask.texts for _ in range(ask.n)]
    if reason == "abort":
        texts = [""] * len(texts)
    generated = tokens * len(texts)
    return {
        "id": rid,
        "object": "chat.completion" if ask.kind == "chat" else "text_completion",
        "created": created,
        "model": model,
        "choices": [
            _choice(ask.kind, index, text, reason) for index, text in enumerate(texts)
        ],
        "usage": {
            "prompt_tokens": ask.job.prompt_tokens,
            "completion_tokens": generated,
            "total_tokens": ask.job.prompt_tokens + generated,
        },
    }


def _choice(kind: str, index: int, text: str, reason: str) -> Json:
    choice: Json = {"index": index, "finish_reason": reason, "logprobs": None}
    if kind == "chat":
        return choice | {"message": {"role": "assistant", "content": text}}
    return choice | {"text": text}


def _embeddings_answer(ask: Ask, model: str) -> Json:
    tokens = ask.job.prompt_tokens
    return {
        "object": "list",
        "model": model,
        "data": [
            {
                "object": "embedding",
                "index": index,
                "embedding": _encoded(embedding(text), ask.base64_vectors),
            }
            for index, text in enumerate(ask.texts)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _encoded(vector: list[float], as_base64: bool) -> list[float] | str:
    if not as_base64:
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _embedding_ask(body: Json, rid: str | None, context_length: int) -> Ask:
    texts = _texts(body.get("input"))
    encoding = body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise BadRequestError("encoding_format must be 'float' or 'base64'")
    job = Job(_count(texts, 0, context_length), 0, len(texts))
    return Ask("embedding", texts, job, 1, rid, encoding == "base64")


def _texts(value: object) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts:
        raise BadRequestError("the prompt must be a string or a list of strings")
    if all(isinstance(token, int) for token in texts):
        return [" ".join(map(str, texts))]
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise BadRequestError("the prompt must not be empty")
    return texts


def _chat_texts(body: Json) -> list[str]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequestError("messages must be a list, and not empty")
    contents = []
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise BadRequestError("each message needs a role")
        contents.append(_content(message.get("content")))
    return ["\n".join(contents)]


def _content(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        parts = [part for part in value if isinstance(part, dict)]
        return "".join(str(part.get("text", "")) for part in parts)
    raise BadRequestError("a message's content must be a string or a list of parts")


def _whole(body: Json, name: str, default: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if type(value) is not int or value < 1:
        raise BadRequestError(f"{name} must be a whole number of at least 1")
    return value


def _check_temperature(value: object) -> None:
    if value is None:
        return
    if not isinstance(value, (int, float)) or value < 0:
        raise BadRequestError(f"temperature must not be negative, got {value}")


def _count(texts: list[str], max_tokens: int, context_length: int) -> int:
    counts = [len(text.split()) for text in texts]
    if max(counts) + max_tokens > context_length:
        raise BadRequestError(
            f"{max(counts)} prompt tokens and {max_tokens} to generate exceed "
            f"the context length of {context_length}"
        )
    return sum(counts)
