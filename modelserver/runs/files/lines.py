"""What a line of OpenAI's Batch API must be, and what row it becomes."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from modelserver.adapters import find_adapter_field
from modelserver.engine_protocol import CHAT_PATH, COMPLETIONS_PATH, EMBEDDINGS_PATH
from modelserver.errors import ModelserverError, RequestError, UnknownModelError
from modelserver.extent import find_excess
from modelserver.messaging.catalogue import Catalogue
from modelserver.messaging.requests import build, check_context, with_model
from modelserver.messaging.subjects import check_subject
from modelserver.messaging.wire import CHAT, COMPLETE, EMBED, KINDS
from modelserver.parameters import (
    KNOWN,
    MOST_DEPTH,
    OURS,
    is_empty,
    is_whole,
    plain,
)
from modelserver.runs.files.problems import LineError
from modelserver.runs.prompts import Template, payload_of, task_of
from modelserver.runs.rows import Row
from modelserver.values import Json, Kind

#: By url: the task, and the part of the body that it is about.
URLS = {
    CHAT_PATH: (CHAT, "messages"),
    COMPLETIONS_PATH: (COMPLETE, "prompt"),
    EMBEDDINGS_PATH: (EMBED, "input"),
}
#: The reverse.
URL_OF = {task: url for url, (task, _) in URLS.items()}
#: So many different sets of parameters are remembered as checked.
MOST_KNOWN = 1_000
#: The column of a table that names its rows.
ID_COLUMN = "custom_id"
#: Names that a line has once, as a rule; what a text says of them has its quotes behind
#: backslashes.
_NAMES = (b'"custom_id"', b'"body"', b'"model"')
#: Bytes of a line that an error shows.
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One request of a file."""

    custom_id: str
    row: Row
    #: The line, as the file has it or as a row of columns would be written.
    raw: bytes


@dataclass(frozen=True, slots=True)
class LineBounds:
    """What the lines of a file may ask for."""

    #: The url of all lines, "" for any.
    url: str = ""
    #: The models that they may name; none are all.
    models: tuple[str, ...] = ()
    #: Whether they are read beside others' requests, so that none may hold too much.
    are_bounded: bool = False


@dataclass(slots=True)
class LineReader:
    """Makes rows of lines, or says what is wrong with them."""

    models: Catalogue
    #: The model of all rows, whatever they say; "" leaves that to them.
    model: str = ""
    #: Parameters of all rows, whatever they say.
    parameters: Mapping[str, Json] = field(default_factory=dict)
    #: What makes a prompt of a row of columns.
    template: Template | None = None
    is_chat: bool = False
    #: Parameters that no engine is known to take.
    unknown: set[str] = field(default_factory=set)
    #: Seconds within which each row is to be answered once it was sent.
    deadline: float | None = None
    bounds: LineBounds = LineBounds()
    _known: dict[bytes, Mapping[str, Json]] = field(default_factory=dict)

    def read(self, number: int, raw: bytes | Mapping[str, Any]) -> BatchLine:
        """A row from a line or a table's row. Raises LineError.

        With a template a line is a row of columns, as a table's.
        """
        if not isinstance(raw, bytes):
            return self._read_columns(number, raw)
        if self.bounds.are_bounded and (excess := find_excess(raw)):
            told = f"has more than {excess}; make several lines of it"
            raise LineError("line_too_long", told)
        line = _loaded(raw)
        if self.template is None:
            return self._read_line(number, raw, line)
        if "url" in line and "body" in line:
            told = "has a whole request, and no columns; leave --prompt out"
            raise LineError("invalid_row", told)
        return self._read_columns(number, line)

    def _read_line(self, number: int, raw: bytes, line: dict[str, Any]) -> BatchLine:
        name = line.get("custom_id")
        if line and line.keys().isdisjoint(("custom_id", "url", "body")):
            raise LineError(
                "invalid_custom_id",
                "has no custom_id, url and body; where its columns make a prompt, say "
                f'which by --prompt "... {{{next(iter(line))}}} ..."',
            )
        if not isinstance(name, str) or not name:
            what = "no custom_id" if name is None else f"the custom_id {name!r}"
            raise LineError(
                "invalid_custom_id", f"has {what}; give it a text that names the line"
            )
        try:
            url, body = line.get("url"), line.get("body")
            if line.get("method", "POST") != "POST":
                told = f"has the method {line['method']!r}; it must be POST"
                raise LineError("invalid_method", told)
            if not isinstance(url, str) or url not in URLS:
                told = "no url" if url is None else f"the url {url!r}"
                raise LineError(
                    "invalid_url", f"has {told}; there are {', '.join(URLS)}"
                )
            if url != (self.bounds.url or url):
                told = f"has the url {url!r}, and its batch is for {self.bounds.url}"
                raise LineError("invalid_url", f"{told}; make a batch for each")
            if not isinstance(body, dict):
                raise LineError("invalid_body", "has no body; it must be an object")
            task, subject = URLS[url]
            if subject not in body:
                raise LineError("invalid_body", f"has no {subject} in its body")
            content = body.pop(subject)
            if url == COMPLETIONS_PATH:
                content = _one_prompt(content)
            row = self._row(number, task, content, body)
        except LineError as error:
            error.custom_id = name
            raise
        return BatchLine(name, row, raw)

    def _read_columns(self, number: int, columns: Mapping[str, Any]) -> BatchLine:
        given = columns.get(ID_COLUMN)
        name = f"row-{number}" if is_empty(given) or given == "" else str(given)
        try:
            payload = payload_of(columns, self.template, is_chat=False)
            if self._is_embedding():
                task = EMBED
            else:
                payload = payload_of(payload, None, self.is_chat)
                task = task_of(payload)
            row = self._row(number, task, payload, {})
        except LineError as error:
            error.custom_id = name
            raise
        except RequestError as error:
            raise LineError("invalid_row", str(error), name) from None
        names = ("model", *self.parameters)
        body = {URLS[URL_OF[task]][1]: payload} | {
            name: row.parameters[name] for name in names if name in row.parameters
        }
        line = {"custom_id": name, "method": "POST", "url": URL_OF[task], "body": body}
        return BatchLine(name, row, orjson.dumps(line))

    def _is_embedding(self) -> bool:
        entry = self.models.entry(self.model) if self.model else None
        return entry is not None and entry.kind is Kind.EMBEDDING

    def _row(self, number: int, task: str, payload: Json, body: dict[str, Any]) -> Row:
        if self.model:
            body["model"] = self.model
        body.update(self.parameters)
        try:
            # Most rows share their parameters: these are looked at once.
            key = task.encode() + orjson.dumps(body)
            parameters = self._known.get(key)
            if parameters is None:
                parameters = self._checked(task, payload, body)
                if len(self._known) >= MOST_KNOWN:
                    self._known.clear()
                self._known[key] = parameters
            else:
                check_subject(task, payload)
        except LineError:
            raise
        except UnknownModelError as error:
            raise LineError("invalid_model", str(error)) from None
        except ModelserverError as error:
            raise LineError("invalid_request", str(error)) from None
        return Row(number, task, payload, parameters)

    def _checked(
        self, task: str, payload: Json, body: Mapping[str, Any]
    ) -> Mapping[str, Json]:
        parameters = self._as_arguments(task, body)
        request = build(task, (payload,), parameters)
        model = self.models.pick(KINDS[task], request.model)
        self._check_allowed(model, body)
        entry = self.models.entry(model)
        length = entry.context_length if entry else None
        check_context(with_model(request, model), length)
        if self.deadline is not None:
            parameters["deadline"] = self.deadline
        return {**parameters, "model": model}

    def _check_allowed(self, model: str, body: Mapping[str, Any]) -> None:
        allowed = self.bounds.models
        if allowed and model not in allowed:
            told = f"asks for {model}, and its key may for {', '.join(allowed)} only"
            raise LineError("model_not_allowed", f"{told}; leave it out")
        if allowed and (name := find_adapter_field(body)):
            told = f"names an adapter by {name}, and its key may ask for some models"
            raise LineError("model_not_allowed", f"{told}; name it as the model")

    def _as_arguments(self, task: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A body as ``delay`` takes it: what we do not know goes to the engine."""
        known = KNOWN[task.rpartition(".")[2]] | OURS | {"stream"}
        arguments = {name: body[name] for name in body if name in known}
        others = {name: body[name] for name in body if name not in known}
        extra = body.get("extra_body") or {}
        # One that is no object is refused with the rest of the request.
        if others and isinstance(extra, dict):
            self.unknown |= others.keys()
            arguments["extra_body"] = {**extra, **others}
        arguments["raw"] = True
        return arguments


def _one_prompt(prompt: Any) -> Any:
    """The prompt of a line, which may be a list of one. Raises LineError."""
    if not isinstance(prompt, list) or not prompt or is_whole(prompt[0]):
        return prompt
    if len(prompt) > 1:
        told = f"prompt has {len(prompt)} prompts; give each a line of its own"
        raise LineError("invalid_request", told)
    return prompt[0]


def _loaded(raw: bytes) -> dict[str, Any]:
    try:
        line = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise LineError("invalid_json", _json_problem(raw, error)) from None
    if not isinstance(line, dict):
        raise LineError("invalid_json", "is no object")
    # Most lines are found fine by counting, without another look at what they hold.
    if raw.count(b"[") + raw.count(b"{") > MOST_DEPTH:
        _check_depth(line)
    if any(raw.count(name) > 1 for name in _NAMES):
        _check_names(raw)
    return line


def _check_depth(line: Mapping[str, Any]) -> None:
    try:
        plain(line, "the line")
    except RequestError as error:
        raise LineError("invalid_json", str(error)) from None


def _check_names(raw: bytes) -> None:
    """Refuse a line, or a body, that says two things of the same name."""
    pairs = json.loads(raw, object_pairs_hook=_Pairs)
    bodies = [value for name, value in pairs if name == "body"]
    for where, each in (("", pairs), *((" in its body", body) for body in bodies)):
        if isinstance(each, _Pairs):
            for name, number in Counter(name for name, _ in each).items():
                if number > 1:
                    told = f"has {name} twice{where}; say it once"
                    raise LineError("invalid_json", told)


class _Pairs(list[tuple[str, Any]]):
    """What an object says, in its order."""


def _json_problem(raw: bytes, error: orjson.JSONDecodeError) -> str:
    if raw.lstrip().startswith(b"["):
        return "begins a JSON array; write one object in each line, without commas"
    if raw.strip() == b"{":
        return "begins an object of several lines; write each object in one line"
    if b"\0" in raw:
        return f"is no JSON: it has a NUL byte at byte {raw.index(0)}"
    try:
        text = raw.decode()
    except UnicodeDecodeError as wrong:
        return f"is not UTF-8 at byte {wrong.start}; save the file as UTF-8"
    start = max(0, error.pos - _SHOWN // 2)
    near = text[start : error.pos + _SHOWN // 2]
    return f"is no JSON: {error.msg} at character {error.pos}, near {near!r}"
