"""What a message in a queue looks like, and how it is kept small.

Celery's message says much twice, and much that is nothing. A request leaves out what
whoever reads it takes for granted; its text is UTF-8 and neither base64 nor escaped.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from kombu.serialization import registry
from kombu.utils.json import dumps as kombu_dumps

from modelserver.messaging.encoding import encode
from modelserver.messaging.wire import CHAT, COMPLETE, EMBED
from modelserver.store.batch import SUBMITTER

#: A run of characters that JSON escapes by number, or any other escape.
_ESCAPES = re.compile(r"(?:\\u[0-9a-fA-F]{4})+|\\.")
#: What must stay escaped: control characters, and halves of characters.
_UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
#: Name of kombu's serializer for requests that were checked; readers see JSON.
SERIALIZER = "modelserver"
_JSON = "application/json"
#: Headers that may go if they have this value, which whoever reads takes for granted.
_DEFAULTS: dict[str, Any] = {
    "lang": "py",
    "argsrepr": "",
    "kwargsrepr": "",
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
        "expiration",
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


def dumps(body: Any) -> str:
    """A body as it is stored, of arguments that were checked.

    What follows a task was not: it may hold NaN, for which orjson writes null.
    """
    if len(body) == 3 and not any(body[2].values()):
        return encode([*body[:2], {}]).decode()
    return str(kombu_dumps(body))


registry.register(SERIALIZER, dumps, None, _JSON)
registry.type_to_name[_JSON] = "json"


def plain(
    headers: Mapping[str, Any], args: Any, kwargs: Any, priority: int
) -> dict[str, Any]:
    """The message of a request that was checked and that nothing follows.

    What Celery makes of such a call, as far as ``slim`` leaves it.
    """
    return {
        "body": unescaped(dumps([args, kwargs, {}])),
        "content-type": _JSON,
        "headers": dict(headers),
        "properties": {"priority": priority},
    }


def slim(message: dict[str, Any], queue: str) -> dict[str, Any]:
    """A request's message without what goes without saying.

    Celery reads it once the worker has filled in the queue and its own tag.
    """
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
    if kept.get(SUBMITTER):
        kept.pop("origin", None)
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
    info = {k: v for k, v in (properties.pop("delivery_info", None) or {}).items() if v}
    if info.get("routing_key") == queue:
        del info["routing_key"]
    if info:
        properties["delivery_info"] = info
    message = message | {"headers": kept, "properties": properties}
    if not properties:
        del message["properties"]
    if message.get("content-encoding") == "utf-8":
        del message["content-encoding"]
    return message


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
