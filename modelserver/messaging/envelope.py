"""What a message in a queue looks like, and how it is kept small.

Celery's message says much twice, and much that is nothing. A request leaves out what
whoever reads it takes for granted; its text is UTF-8 and neither base64 nor escaped.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from modelserver.messaging.wire import CHAT, COMPLETE, EMBED

#: A run of characters that JSON escapes by number, or any other escape.
_ESCAPES = re.compile(r"(?:\\u[0-9a-fA-F]{4})+|\\.")
#: What must stay escaped: control characters, and halves of characters.
_UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
#: The end of a body without callbacks, errbacks, chain and chord, and what it becomes.
_NO_STEPS = (
    ', {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]',
    ", {}]",
)
#: Headers that may go if they have this value, which Celery takes for granted.
_DEFAULTS: dict[str, Any] = {
    "lang": "py",
    "retries": 0,
    "timelimit": [None, None],
    "replaced_task_nesting": 0,
    "ignore_result": False,
    "stamps": {},
}
#: Properties that only brokers of other kinds need, or that headers hold as well.
_SPARE = frozenset(
    {
        "argsrepr",
        "kwargsrepr",
        "body_encoding",
        "delivery_mode",
        "delivery_tag",
        "reply_to",
    }
)
#: By task: what its first argument is called.
_SUBJECTS = {COMPLETE: "prompt", CHAT: "messages", EMBED: "input"}


def unescaped(body: str) -> str:
    """JSON with its characters as they are, where JSON allows that.

    >>> print(unescaped(r'["\\u4e2d\\u6587", "\\n"]'))
    ["中文", "\\n"]
    """
    if "\\u" not in body:
        return body

    def replace(match: re.Match[str]) -> str:
        run = match.group()
        if not run.startswith("\\u"):
            return run
        text = str(json.loads(f'"{run}"'))
        fits = not _UNFIT.search(text) and '"' not in text and "\\" not in text
        return text if fits else run

    return _ESCAPES.sub(replace, body)


def slim(message: dict[str, Any]) -> dict[str, Any]:
    """A request's message without what goes without saying; stock Celery reads it."""
    headers, properties = message["headers"], message["properties"]
    task = headers["id"]
    kept = {
        name: value
        for name, value in headers.items()
        if value is not None and _DEFAULTS.get(name, _DEFAULTS) != value
    }
    if kept.get("root_id") == task:
        del kept["root_id"]
    if "timelimit" in kept and list(kept["timelimit"]) == [None, None]:
        del kept["timelimit"]
    if str(kept.get("argsrepr", "")).startswith("(<"):
        # Of the client's making, and of the worker's again: see ``shown``.
        del kept["argsrepr"]
        kept.pop("kwargsrepr", None)
    encoded = properties.get("body_encoding") != "utf-8"
    properties = {
        name: value
        for name, value in properties.items()
        if name not in _SPARE or (name == "body_encoding" and encoded)
    }
    if properties.get("correlation_id") == task:
        del properties["correlation_id"]
    if not properties.get("priority"):
        properties.pop("priority", None)
    info = properties.get("delivery_info") or {}
    properties["delivery_info"] = {k: v for k, v in info.items() if v}
    if message.get("content-encoding") == "utf-8":
        message = {k: v for k, v in message.items() if k != "content-encoding"}
    body = message["body"]
    if isinstance(body, str) and body.endswith(_NO_STEPS[0]):
        body = body.removesuffix(_NO_STEPS[0]) + _NO_STEPS[1]
    return message | {"body": body, "headers": kept, "properties": properties}


def shown(task: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, str]:
    """A request without its content, for events and logs: (args, kwargs)."""
    subject = _SUBJECTS[task]
    size = _characters(args[0] if args else kwargs.get(subject))
    rest = {
        name: value
        for name, value in kwargs.items()
        if name == "model" or isinstance(value, (int, float))
    }
    return f"(<{subject}: {size} characters>,)", repr(rest)


def _characters(content: Any) -> int:
    """The length of a text, of a list of texts, or of the texts of messages."""
    if isinstance(content, str):
        return len(content)
    if isinstance(content, Mapping):
        return _characters(content.get("content"))
    return sum(map(_characters, content)) if isinstance(content, (list, tuple)) else 0
