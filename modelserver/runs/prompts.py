"""From prompts to rows: texts, chats, objects with a template. Pure."""

import re
from collections.abc import Iterable, Mapping, Sized
from string import Formatter
from typing import Any

from modelserver.errors import RequestError
from modelserver.messaging.catalogue import Catalogue
from modelserver.messaging.requests import build, check_context, with_model
from modelserver.messaging.wire import CHAT, COMPLETE, EMBED
from modelserver.parameters import held, is_empty, plain
from modelserver.values import Json

#: What may be in the place of a prompt, by task: all tasks of a call.
SOUND_PROMPTS: Mapping[str, Json] = {
    COMPLETE: "a",
    CHAT: [{"role": "user", "content": "a"}],
}
SOUND_TEXTS: Mapping[str, Json] = {EMBED: "a"}

#: What iterates over the names of its columns, or over nothing.
_FRAMES = ("DataFrame", "LazyFrame", "Table", "RecordBatch")
#: How Python shows what has no text: ``<object object at 0x7f3c...>``.
_TEXT_OF_NONE = re.compile(r"<.* at 0x[0-9A-Fa-f]+>+", re.DOTALL)


class Template:
    """A text with places for a row's columns: ``"Translate: {text}"``.

    >>> Template("{n}. {text}").fill({"n": 1, "text": "one"})
    '1. one'
    """

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise RequestError(
                'a template is a text with columns\' names, as in "Translate: {text}", '
                f"not {text!r}"
            )
        try:
            self._parts = list(Formatter().parse(text))
        except ValueError as error:
            raise RequestError(
                f"the template {text!r} is wrong ({error}); a brace that is text is "
                "written twice: {{ }}"
            ) from None
        self.columns = [name for _, name, _, _ in self._parts if name is not None]
        for name in self.columns:
            if not name.replace(" ", "_").replace("-", "_").isidentifier():
                raise RequestError(
                    f"the template {text!r} has the place {{{name}}}; a place names a "
                    "column, and a brace that is text is written twice: {{ }}"
                )

    def fill(self, row: Mapping[str, Any]) -> str:
        """The text for one row. Raises RequestError, which names the column."""
        parts = []
        for text, name, form, _ in self._parts:
            parts.append(text)
            if name is not None:
                parts.append(_formatted(_cell(row, name), form or "", name))
        return "".join(parts)


def _cell(row: Mapping[str, Any], name: str) -> Any:
    if name not in row:
        there = ", ".join(map(str, list(row)[:20])) or "none"
        raise RequestError(f'there is no column "{name}"; there are: {there}')
    value = held(row[name])
    if is_empty(value):
        raise RequestError(f'column "{name}" is empty ({value}); leave such rows out')
    return value


def _formatted(value: Any, form: str, name: str) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise RequestError(f'column "{name}" is binary; make it a text')
    try:
        text = format(value, form)
        if not isinstance(value, str) and _TEXT_OF_NONE.fullmatch(text):
            kind = type(value).__name__
            raise RequestError(f'column "{name}" is of type {kind}; make it a text')
        return text
    except (ValueError, TypeError) as error:
        raise RequestError(
            f'column "{name}" cannot be written as {{{name}:{form}}}: {error}'
        ) from None


def payload_of(prompt: Any, template: Template | None, is_chat: bool) -> Json:
    """The text or the messages of one row, as JSON can carry them.

    A text is a message of a user where ``is_chat``. Raises RequestError.
    """
    prompt = held(prompt)
    if template is not None:
        if hasattr(prompt, "_asdict"):
            prompt = prompt._asdict()
        if not isinstance(prompt, Mapping):
            raise RequestError(
                f"a template needs an object with columns, not {_kind(prompt)}; rows "
                'of a frame are frame.to_dict("records"), of one of polars '
                "frame.iter_rows(named=True)"
            )
        prompt = template.fill(prompt)
    elif isinstance(prompt, Mapping) and "role" in prompt:
        raise RequestError(
            "a message stands alone; put the messages of each chat into a list, as in "
            'map_prompts([[{"role": "user", "content": "hi"}]])'
        )
    elif isinstance(prompt, Mapping):
        raise RequestError(
            "an object with columns needs a template: template="
            f'"... {{{next(iter(prompt), "column")}}} ..."'
        )
    elif is_empty(prompt):
        raise RequestError(f"the prompt is empty ({prompt}); leave such rows out")
    value = plain(prompt, "the prompt")
    if is_chat and isinstance(value, str):
        value = [{"role": "user", "content": value}]
    return value


def _kind(value: Any) -> str:
    return "text" if isinstance(value, str) else type(value).__name__


def check_many(values: Any, call: str, what: str) -> None:
    """Refuse one text, and a table, which is no iterable of its rows."""
    if isinstance(values, (str, bytes)):
        raise RequestError(f"{call}() takes many {what}; put a text into a list")
    if hasattr(values, "__aiter__"):
        raise RequestError(
            f"{call}() reads an iterable, and {type(values).__name__} is one for "
            "`async for` only; pass a list, or a generator without async"
        )
    is_frame = type(values).__name__ in _FRAMES
    if not (is_frame or isinstance(values, Mapping)):
        _check_iterable(values, call, what)
        return
    if hasattr(values, "collect"):
        raise RequestError(
            f"{call}() takes many {what}, and a {type(values).__name__} has none "
            "before it is collected; pass those of frame.collect()"
        )
    if what == "texts" or not is_frame:
        remedy = 'one column, as in table["text"]'
    elif hasattr(values, "iter_rows"):
        remedy = "frame.iter_rows(named=True)"
    elif hasattr(values, "to_pylist"):
        remedy = "table.to_pylist()"
    else:
        remedy = 'frame.to_dict("records")'
    raise RequestError(
        f"{call}() takes many {what}, and a {type(values).__name__} is iterated over "
        f"by the names of its columns; pass {remedy}"
    )


def length_of(rows: Iterable[Any]) -> int | None:
    """How many there are, None where that is known only at the end."""
    return len(rows) if isinstance(rows, Sized) else None


def _check_iterable(values: Any, call: str, what: str) -> None:
    try:
        iter(values)
    except TypeError:
        raise RequestError(
            f"{call}() takes many {what}, as a list or a generator has them, not "
            f"{values!r:.80}"
        ) from None


def task_of(payload: Json) -> str:
    """The task for a prompt: chat for messages, complete for text or token ids."""
    is_messages = isinstance(payload, list) and any(
        isinstance(each, Mapping) for each in payload
    )
    return CHAT if is_messages else COMPLETE


def check(task: str, payload: Json, parameters: Mapping[str, Json]) -> None:
    """Refuse what no engine takes. Raises RequestError."""
    build(task, (payload,), parameters)


def check_call(
    sound: Mapping[str, Json], task: str, parameters: Mapping[str, Json], now: Catalogue
) -> None:
    """Refuse what is wrong with a call, whatever its prompts are.

    ``sound`` has a prompt for each task of the call, ``task`` is that of its first
    prompt. What only another task takes (``tools``) is a fault of the prompts that are
    of this one. Raises RequestError, UnknownModelError.
    """
    errors: dict[str, RequestError] = {}
    for each, prompt in sound.items():
        try:
            request = build(each, (prompt,), parameters)
            model = now.pick(request.kind, request.model)
            entry = now.entry(model)
            length = entry.context_length if entry else None
            check_context(with_model(request, model), length)
        except RequestError as error:
            errors[each] = error
    if len(errors) == len(sound):
        raise errors[task]
