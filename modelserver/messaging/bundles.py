"""Rows of a run on the wire: the bundle that carries them, and the answer to each.

A bundle is the message of one task on the queue of a model. Its rows share a task and
parameters; a row that differs says its own.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from kombu.utils.json import loads as kombu_loads

from modelserver.messaging.encoding import encode
from modelserver.messaging.wire import ROWS
from modelserver.store.batch import DEADLINE, LEFT_BY, SENT, SUBMITTER, RowAnswer

#: What a row's error is called that was taken back before it was answered.
CANCELLED = "cancelled"


@dataclass(slots=True)
class BundleRow:
    """One row of a bundle."""

    #: Its number in the run.
    number: int
    #: The prompt, the messages or the input.
    payload: Any
    #: Its own parameters, None for the bundle's.
    parameters: Mapping[str, Any] | None = None
    #: What is known of it besides, by the names of a message's headers: its deadline,
    #: and what it was tried on.
    state: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, values: Sequence[Any]) -> "BundleRow":
        """The reverse of ``values``."""
        number, payload, own, state = (*values, None, None)[:4]
        return cls(number, payload, own, dict(state or {}))

    def values(self) -> list[Any]:
        """As it travels.

        >>> BundleRow(7, "a").values()
        [7, 'a']
        """
        if self.state:
            return [self.number, self.payload, self.parameters, self.state]
        if self.parameters is not None:
            return [self.number, self.payload, self.parameters]
        return [self.number, self.payload]


@dataclass(frozen=True, slots=True)
class BundleHead:
    """What the rows of a bundle share."""

    #: The name of the run.
    run: str
    #: The number of the run's round.
    round: int
    #: The name of the rows' task.
    task: str
    #: What the task takes by name.
    parameters: Mapping[str, Any]
    #: Who submits.
    submitter: str
    priority: int | None = None
    #: What is known of all rows, by the names of a message's headers.
    state: Mapping[str, Any] = field(default_factory=dict)
    #: When it is sent, in seconds since the epoch; 0 leaves that unsaid.
    sent_at: float = 0.0


def write_bundle(head: BundleHead, rows: Sequence[bytes]) -> bytes:
    """The message of a bundle, whose rows are JSON already."""
    shared: dict[str, Any] = {
        "run": head.run,
        "round": head.round,
        "task": head.task,
        "parameters": head.parameters,
    }
    if head.state:
        shared["state"] = head.state
    body = b"[[],%b,%b]},{}]" % (
        orjson.dumps(shared)[:-1],
        b'"rows":[' + b",".join(rows),
    )
    message: dict[str, Any] = {
        "body": body.decode(),
        "content-type": "application/json",
        "headers": {
            "task": ROWS,
            "id": _new_id(head.run),
            SUBMITTER: head.submitter,
        },
    }
    if head.sent_at:
        message["headers"][SENT] = round(head.sent_at, 2)
    if head.priority is not None:
        message["properties"] = {"priority": head.priority}
    return _write(len(rows), message)


def _new_id(run: str) -> str:
    return f"{run}/{uuid.uuid4().hex[:12]}"


def _write(number: int, message: Mapping[str, Any]) -> bytes:
    """The message with the number of its rows in front, where scripts read it."""
    return b'{"rows":%d,' % number + orjson.dumps(message)[1:]


@dataclass(frozen=True, slots=True)
class WaitingBundle:
    """A bundle as it lies in a queue."""

    message: Mapping[str, Any]
    body: list[Any]
    rows: list[BundleRow]

    @property
    def run(self) -> tuple[str, int]:
        """The run, and which of its rounds."""
        return self.body[1]["run"], self.body[1]["round"]

    def is_overdue(self, now: float) -> bool:
        """Whether the deadline of its rows has passed."""
        due = (self.body[1].get("state") or {}).get(DEADLINE)
        return due is not None and now > due

    def with_rows(
        self, rows: Sequence[BundleRow], left_by: str = "", **headers: Any
    ) -> bytes:
        """The message with these rows in place of its own, as one that comes again.

        ``left_by`` says whom it is not for.
        """
        args, kwargs, rest = self.body
        values = [row.values() for row in rows]
        body = orjson.dumps([args, {**kwargs, "rows": values}, rest]).decode()
        message: dict[str, Any] = {LEFT_BY: left_by} if left_by else {}
        message |= {
            name: value
            for name, value in self.message.items()
            if name not in ("rows", LEFT_BY)
        }
        message["body"] = body
        message["headers"] = {
            **message["headers"],
            **headers,
            "id": _new_id(kwargs["run"]),
        }
        properties = message.get("properties") or {}
        info = {**(properties.get("delivery_info") or {}), "redelivered": True}
        message["properties"] = {**properties, "delivery_info": info}
        return _write(len(rows), message)


def read_bundle(raw: bytes) -> WaitingBundle | None:
    """A bundle from its message; None where it is another message."""
    if not raw.startswith(b'{"rows":'):
        return None
    message = orjson.loads(raw)
    body = orjson.loads(message["body"])
    return WaitingBundle(message, body, list(map(BundleRow.read, body[1]["rows"])))


def answer_rows(bundle: WaitingBundle, tag: str, answer: bytes) -> list[RowAnswer]:
    """The same answer to each row of a bundle that is held under this tag."""
    rows = bundle.rows
    return [RowAnswer(tag, *bundle.run, row.number, answer) for row in rows]


# Answers.


def write_answer(value: Any) -> bytes:
    """A row's answer, as it is stored."""
    return b"+" + encode(value)


def write_error(kind: str, message: str) -> bytes:
    """A row's error, as it is stored; ``kind`` is the name of its class."""
    text = message.encode(errors="replace").decode()
    return b"-" + orjson.dumps([kind, text])


def read_answer(stored: bytes) -> tuple[Any, tuple[str, str] | None]:
    """The answer as ``.get()`` gives it, or the error's kind and message.

    >>> read_answer(write_answer("a")), read_answer(write_error("RequestError", "no"))
    (('a', None), (None, ('RequestError', 'no')))
    """
    value = stored[1:]
    if stored.startswith(b"-"):
        kind, message = orjson.loads(value)
        return None, (kind, message)
    if b"__type__" in value:
        return kombu_loads(value.decode()), None
    return orjson.loads(value), None
