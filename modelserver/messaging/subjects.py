"""What a request is about: a prompt, messages, texts to embed. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from modelserver.engine_protocol import RESPONSES_PATH
from modelserver.errors import RequestError
from modelserver.messaging.wire import CHAT, COMPLETE, EMBED
from modelserver.parameters import are_whole, is_whole

#: What an assistant's message may have in place of content.
_INSTEAD_OF_CONTENT = ("tool_calls", "function_call", "refusal", "reasoning_content")


def is_one_text(content: Any) -> bool:
    """Whether this is one text to embed: text, or a text as token ids."""
    return isinstance(content, str) or is_whole(content[0])


def _check_prompt(prompt: Any) -> None:
    if isinstance(prompt, (list, tuple)):
        if prompt and are_whole(prompt):
            _check_token_ids(prompt, "prompt")
            return
        raise RequestError(
            f"prompt must be one text, not a {type(prompt).__name__}; send one request "
            "for each prompt, as map_prompts(prompts) does"
        )
    if not isinstance(prompt, str):
        raise RequestError(
            f"prompt must be text or a list of token ids, not {type(prompt).__name__}"
        )
    if not prompt:
        raise RequestError("prompt is empty; an engine needs at least one character")


def _check_token_ids(ids: Sequence[int], what: str) -> None:
    if min(ids) < 0:
        raise RequestError(f"{what} has the token id {min(ids)}; ids begin at 0")


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
        _check_content(message, place)


def _check_content(message: Mapping[str, Any], place: int) -> None:
    content = message.get("content")
    if isinstance(content, str):
        return
    if isinstance(content, (list, tuple)):
        _check_parts(content, f"messages[{place}]['content']")
        return
    if content is None and any(message.get(name) for name in _INSTEAD_OF_CONTENT):
        return
    if content is None:
        raise RequestError(
            f"messages[{place}] has no content; give it a text as content"
        )
    raise RequestError(
        f"messages[{place}] must have text or a list of parts as content, not "
        f"{type(content).__name__}"
    )


def _check_parts(parts: Sequence[Any], where: str) -> None:
    for place, part in enumerate(parts):
        # Some engines take texts as parts.
        if not isinstance(part, (str, Mapping)):
            raise RequestError(
                f'{where}[{place}] must be a part like {{"type": "text", "text": '
                f'"hi"}}, not {type(part).__name__}'
            )


def _check_texts(texts: Any) -> None:
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, (list, tuple)):
        raise RequestError(
            f"input must be a text or a list of texts, not {type(texts).__name__}"
        )
    if not texts:
        raise RequestError("input is an empty list; there is nothing to embed")
    if are_whole(texts):
        _check_token_ids(texts, "input")
        return
    of_ids = isinstance(texts[0], (list, tuple))
    bad = [
        problem
        for place, text in enumerate(texts)
        if (problem := _find_problem(text, place, of_ids))
    ]
    if bad:
        more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise RequestError("; ".join(bad[:5]) + more)


def _find_problem(text: Any, place: int, of_ids: bool) -> str:
    if of_ids:
        if not isinstance(text, (list, tuple)) or not are_whole(text):
            return f"input[{place}] must be a list of token ids, as input[0] is"
        if text and min(text) < 0:
            return f"input[{place}] has the token id {min(text)}; ids begin at 0"
    elif not isinstance(text, str):
        return f"input[{place}] must be text, not {type(text).__name__}"
    return "" if text else f"input[{place}] is empty; leave it out"


_CHECKS: Mapping[str, Callable[[Any], None]] = {
    COMPLETE: _check_prompt,
    CHAT: _check_messages,
    EMBED: _check_texts,
}


def check_subject(task: str, content: Any, path: str = "") -> None:
    """Check what a request is about: prompt, messages, input. Raises RequestError."""
    if path != RESPONSES_PATH:
        _CHECKS[task](content)
    elif not isinstance(content, (str, list)) or not content:
        raise RequestError("input must be a text or a list of items, and not empty")
