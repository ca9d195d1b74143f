"""What an engine's response means: the caller's answer, or in what way it is none.

Pure. What the content of a request can cause is told apart from what only an engine
can: an empty text may be an answer, a vector of NaN is often the text's own doing.
"""

import base64
import math
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from modelserver.engine_protocol import EngineFault, told_in
from modelserver.messaging.requests import InferenceRequest
from modelserver.messaging.subjects import is_one_text
from modelserver.messaging.wire import CHAT, EMBED, Vector

#: What engines say of a generation that did not come to its end.
BROKEN_OFF = frozenset({"abort", "aborted", "error", "cancelled", "canceled"})
#: What engines say of a generation that ``max_tokens`` or the context cut off.
CUT_OFF = "length"
#: Where a thinking model's thoughts stand: SGLang's name and vLLM's.
THOUGHTS = ("reasoning_content", "reasoning")
#: What a chat's answer may have in place of a text.
_INSTEAD_OF_TEXT = (*THOUGHTS, "tool_calls", "function_call", "refusal")
#: Bytes of one number of a vector.
_NUMBER_BYTES = 4
#: Most bad texts that an error names.
MOST_TEXTS_TOLD = 10


class UnsoundVectorsError(EngineFault):
    """Some texts got no sound vector. The text itself is often the cause."""

    def __init__(self, problems: Mapping[int, str]) -> None:
        super().__init__(f"answered 200 with bad vectors: {told(problems)}", way="")
        #: By a text's place in the request: what is wrong with its vector.
        self.problems = dict(problems)


def told(problems: Mapping[int, str]) -> str:
    """Bad texts by their places.

    >>> told({3: "NaN or infinity in its vector"})
    'text 3 (NaN or infinity in its vector)'
    """
    shown = [f"text {place} ({why})" for place, why in sorted(problems.items())]
    more = len(shown) - MOST_TEXTS_TOLD
    return ", ".join(shown[:MOST_TEXTS_TOLD]) + f" and {more} more" * (more > 0)


def answer(
    request: InferenceRequest,
    response: dict[str, Any],
    lengths: Counter[int] | None = None,
) -> Any:
    """What the caller gets from an engine's response body.

    ``lengths`` counts the vectors that the engine gave so far by their length, and is
    added to. Raises EngineFault where the body is not an answer to this request.
    """
    if request.is_of_other_path:
        return response
    try:
        if request.task == EMBED:
            values = _vectors(request, response, lengths)
        else:
            values = _messages(request, response)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        words = told_in(response)
        raise EngineFault(
            f"answered 200 with a body of the wrong shape ({words or repr(error)})",
            way="wrong shape",
        ) from error
    if request.raw:
        return response
    return values if request.many else values[0]


def typed(body: Mapping[str, Any]) -> dict[str, Any]:
    """A body with nothing but texts in its metadata, as OpenAI's has it.

    SGLang lists versions of weights there, for which clients refuse the whole answer.

    >>> typed({"metadata": {"version": "a", "versions": ["a"]}})
    {'metadata': {'version': 'a', 'versions': '["a"]'}}
    """
    metadata = body.get("metadata")
    if not isinstance(metadata, Mapping):
        return dict(body)
    texts = {
        name: value if isinstance(value, str) else orjson.dumps(value).decode()
        for name, value in metadata.items()
    }
    return {**body, "metadata": texts}


def is_cut_off(request: InferenceRequest, response: Mapping[str, Any]) -> bool:
    """Whether any of an answer's texts ends because it had no more tokens."""
    is_text = request.task != EMBED and not request.is_of_other_path
    if not is_text or request.body.get("max_tokens") == 0:
        return False
    return any(_reason(choice) == CUT_OFF for choice in response["choices"])


def tokens(response: Mapping[str, Any]) -> tuple[int, int | None]:
    """Prompt and completion tokens as the response says; (0, None) if it does not."""
    usage = response.get("usage")
    if not isinstance(usage, Mapping):
        return 0, None
    prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
    completion = usage.get("completion_tokens", usage.get("output_tokens"))
    return (
        prompt if isinstance(prompt, int) else 0,
        completion if isinstance(completion, int) else None,
    )


def in_order(entries: Sequence[Any]) -> Sequence[Any]:
    """Choices or vectors by their index, or as they came if they have no other.

    Raises ValueError where what belongs to what cannot be known.
    """
    indexes = [
        each.get("index") if isinstance(each, dict) else None for each in entries
    ]
    known = [(place, index) for place, index in enumerate(indexes) if index is not None]
    if all(index == place for place, index in known):
        return entries
    if {index for _, index in known} == set(range(len(entries))):
        return sorted(entries, key=lambda entry: entry["index"])
    if len(known) == len(entries) and len({index for _, index in known}) == 1:
        return entries  # Some engines number nothing.
    raise ValueError(f"indexes {indexes[:8]}")


def _check_number(request: InferenceRequest, found: Sequence[Any]) -> None:
    expected = 1
    if request.task != EMBED:
        expected = int(request.body.get("n") or 1)
    elif not is_one_text(request.body["input"]):
        expected = len(request.body["input"])
    if len(found) != expected:
        text = f"answered 200 with {len(found)} answers for {expected}"
        raise EngineFault(text, way="wrong number")


# Generated texts.


def _messages(request: InferenceRequest, response: Mapping[str, Any]) -> list[Any]:
    choices = in_order(response["choices"])
    _check_number(request, choices)
    for choice in choices:
        if (reason := _reason(choice)) in BROKEN_OFF:
            words = told_in(choice.get("finish_reason")) or told_in(response)
            text = f'answered 200 with a generation that ended by "{reason}" {words}'
            raise EngineFault(text.rstrip(), way="broken off")
    if request.task != CHAT:
        found: list[Any] = [choice["text"] for choice in choices]
        texts = [(text, False) for text in found]
    elif request.body.get("tools") or request.body.get("functions"):
        found = [_message(choice["message"]) for choice in choices]
        texts = [_chat_text(choice["message"]) for choice in choices]
    else:
        texts = [_chat_text(choice["message"]) for choice in choices]
        found = [text for text, _ in texts]
    for choice, (text, more) in zip(choices, texts, strict=True):
        _check_text(text, more or _is_ended(request, response, choice))
    return found


def _check_text(text: Any, may_be_empty: bool) -> None:
    if not isinstance(text, str):
        raise TypeError(f"a text of type {type(text).__name__}")
    if not text and not may_be_empty:
        raise ValueError("an empty text that nothing was generated for")


def _is_ended(
    request: InferenceRequest, response: Mapping[str, Any], choice: Mapping[str, Any]
) -> bool:
    """Whether the engine says that it generated, so that no text is a sound answer.

    A stop text that comes first leaves none, nor do special tokens.
    """
    generated = tokens(response)[1]
    if generated is None:
        return bool(_reason(choice))
    return generated > 0 or request.body.get("max_tokens") == 0


def _reason(choice: Mapping[str, Any]) -> str:
    """Why a generation ended, "" if unknown. SGLang's own API says it as an object."""
    reason = choice.get("finish_reason")
    if isinstance(reason, Mapping):
        reason = reason.get("type")
    return reason.lower() if isinstance(reason, str) else ""


def _chat_text(message: Mapping[str, Any]) -> tuple[Any, bool]:
    """A message's text, and whether it says something besides."""
    content = message.get("content")
    more = any(message.get(name) for name in _INSTEAD_OF_TEXT)
    if content is None and (more or "content" in message):
        content = ""
    return content, more


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """What a caller gets who offered tools; it may be sent back as it is."""
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise TypeError(f"tool_calls of type {type(calls).__name__}")
    found = {
        "role": "assistant",
        "content": message.get("content") or (None if calls else ""),
        "tool_calls": calls,
    }
    if call := message.get("function_call"):
        found["function_call"] = call
    return found


# Vectors.


def _vectors(
    request: InferenceRequest,
    response: Mapping[str, Any],
    lengths: Counter[int] | None,
) -> list[Vector]:
    entries = in_order(response["data"])
    _check_number(request, entries)
    vectors = [entry["embedding"] for entry in entries]
    if request.body.get("embed_dtype", "float32") != "float32":
        return vectors  # Of numbers that we cannot read.
    problems: dict[int, str] = {}
    sizes: dict[int, int] = {}
    found = []
    for place, vector in enumerate(vectors):
        try:
            packed = _packed(vector)
            if problem := _find_problem(packed):
                raise ValueError(problem)
        except (ValueError, OverflowError) as error:
            problems[place] = str(error)
            continue
        sizes[place] = len(packed) // _NUMBER_BYTES
        found.append(
            Vector(vector)
            if isinstance(vector, str)
            else Vector(base64.b64encode(packed).decode())
        )
    problems |= _odd_lengths(sizes, Counter() if lengths is None else lengths)
    if problems:
        raise UnsoundVectorsError(problems)
    return found


def _packed(vector: Any) -> bytes:
    """A vector as float32 in little-endian bytes. Raises ValueError, OverflowError."""
    if vector is None:
        raise ValueError("no vector")
    if isinstance(vector, str):
        try:
            return base64.b64decode(vector, validate=True)
        except ValueError as error:
            raise ValueError(f"its vector is not base64: {error}") from None
    if not isinstance(vector, list):
        raise ValueError(f"a {type(vector).__name__} for a vector")
    try:
        return array("f", vector).tobytes()
    except TypeError:
        raise ValueError("something other than numbers in its vector") from None


def _find_problem(packed: bytes) -> str:
    """What is wrong with a vector, "" for nothing."""
    if not packed:
        return "an empty vector"
    if len(packed) % _NUMBER_BYTES:
        return f"its vector has {len(packed)} bytes, which are no whole numbers"
    if not packed.strip(b"\x00\x80"):
        return "its vector is all zeros"
    # The highest byte of NaN and infinity: looked for first, as most vectors have none.
    highest = packed[3::_NUMBER_BYTES]
    if b"\x7f" in highest or b"\xff" in highest:
        numbers = array("f", packed)
        if not all(map(math.isfinite, numbers)):
            return "NaN or infinity in its vector"
    return ""


def _odd_lengths(
    sizes: Mapping[int, int], lengths: Counter[int]
) -> Iterator[tuple[int, str]]:
    """Vectors that are longer or shorter than most that the engine gave so far."""
    lengths.update(sizes.values())
    if len(lengths) < 2:
        return
    most = max(lengths.values())
    usual = {size for size, times in lengths.items() if times == most}
    if len(usual) > 1 and len(set(sizes.values())) > 1:
        usual = set()
    for place, size in sizes.items():
        if size not in usual:
            yield place, f"its vector has {size} numbers, unlike others"
