"""Rows that are checked like requests, and cut into bundles.

A bundle is a small part of what an engine takes at once: so all engines have some of
it, and a worker that dies has few of its rows.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from modelserver.errors import ModelUnavailableError, RequestError
from modelserver.messaging.bundles import BundleHead, write_bundle
from modelserver.messaging.catalogue import Catalogue
from modelserver.messaging.requests import (
    FROM_START,
    build,
    check_context,
    plain_arguments,
    with_model,
)
from modelserver.messaging.subjects import check_subject
from modelserver.parameters import plain
from modelserver.runs.rows import Row
from modelserver.store.batch import DEADLINE, DEADLINE_SECONDS
from modelserver.store.runs.feeding import SentBundle

#: A bundle has at most so great a part of what an engine takes at once.
PARTS_OF_ENGINE = 8
#: Most rows of a bundle.
MOST_BUNDLE_ROWS = 64
#: Rows of a bundle where no engine is ready.
UNKNOWN_BUNDLE_ROWS = 8
#: Most bytes of a bundle's rows, but for a single one that is larger.
MOST_BUNDLE_BYTES = 256_000
#: Parameters of rows that are remembered as checked: most rows share theirs.
MOST_REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class Checked:
    """What is found of a row's parameters."""

    #: The rows' task, and the model that they go to.
    task: str
    model: str
    #: What travels, the model named and without the deadline.
    parameters: Mapping[str, Any]
    #: Seconds from submission, None without a deadline.
    seconds: float | None


@dataclass(frozen=True, slots=True)
class CheckedRow:
    """A row that may be sent."""

    row: Row
    checked: Checked
    #: Its payload as JSON.
    payload: bytes


class RowChecks:
    """Checks rows as ``delay`` checks a request."""

    def __init__(self, catalogue: Callable[[], Catalogue]) -> None:
        self._catalogue = catalogue
        #: By task and identity of the parameters; kept with them, so that it is theirs.
        self._known: dict[tuple[str, int], tuple[Mapping[str, Any], Checked]] = {}
        self._models: Catalogue | None = None

    def check(self, row: Row) -> CheckedRow:
        """Raises RequestError, UnknownModelError, ModelUnavailableError."""
        models = self._catalogue()
        if models is not self._models:
            self._models = models
            self._known.clear()
        known = self._known.get((row.task, id(row.parameters)))
        if known is None:
            payload, checked = self._check_all(row, models)
        else:
            checked = known[1]
            payload = plain(row.payload, "the payload")
            check_subject(row.task, payload)
        self._refuse_down(checked.model, models)
        try:
            return CheckedRow(row, checked, orjson.dumps(payload))
        except TypeError as error:
            raise RequestError(f"it cannot be sent as JSON: {error}") from None

    def _check_all(self, row: Row, models: Catalogue) -> tuple[Any, Checked]:
        args, kwargs = plain_arguments(row.task, (row.payload,), row.parameters)
        request = build(row.task, args, kwargs)
        model = models.pick(request.kind, request.model)
        entry = models.entry(model)
        length = entry.context_length if entry else None
        check_context(with_model(request, model), length)
        kwargs["model"], seconds = model, None
        if kwargs.get("deadline_from") != FROM_START:
            kwargs.pop("deadline_from", None)
            seconds = kwargs.pop("deadline", None)
        try:
            orjson.dumps(kwargs)
        except TypeError as error:
            raise RequestError(
                f"its parameters cannot be sent as JSON: {error}"
            ) from None
        checked = Checked(row.task, models.queue(model), kwargs, seconds)
        if len(self._known) >= MOST_REMEMBERED:
            self._known.clear()
        self._known[row.task, id(row.parameters)] = (row.parameters, checked)
        return args[0], checked

    def _refuse_down(self, model: str, models: Catalogue) -> None:
        down = models.down.get(model)
        if down and down.then == "fail":
            raise ModelUnavailableError(down.text)


@dataclass(frozen=True, slots=True)
class Sender:
    """What all bundles of one run's round share."""

    run: str
    round: int
    submitter: str
    priority: int | None
    #: By when all rows are due, seconds since the epoch; None for no such time.
    due: float | None

    def due_of(self, checked: Checked, now: float) -> float | None:
        """When a row is due that is sent now."""
        own = None if checked.seconds is None else now + checked.seconds
        times = [each for each in (own, self.due) if each is not None]
        return min(times, default=None)


def cut(
    rows: Sequence[CheckedRow], sender: Sender, most: Callable[[str], int]
) -> Iterator[tuple[str, SentBundle]]:
    """Bundles of these rows, each with its queue.

    ``most`` says how many rows of a model a bundle may have.
    """
    now = time.time()
    groups: dict[tuple[str, str, float | None], list[CheckedRow]] = {}
    for row in rows:
        checked = row.checked
        key = (checked.task, checked.model, checked.seconds)
        groups.setdefault(key, []).append(row)
    for (_, model, _), group in groups.items():
        number = max(1, most(model))
        part: list[CheckedRow] = []
        size = 0
        for row in group:
            size += len(row.payload)
            if part and (len(part) >= number or size > MOST_BUNDLE_BYTES):
                yield model, _bundle(part, sender, now)
                part, size = [], len(row.payload)
            part.append(row)
        yield model, _bundle(part, sender, now)


def _bundle(rows: Sequence[CheckedRow], sender: Sender, now: float) -> SentBundle:
    first = rows[0].checked
    due, state = sender.due_of(first, now), {}
    if due is not None:
        state = {DEADLINE: due, DEADLINE_SECONDS: due - now}
    head = BundleHead(
        run=sender.run,
        round=sender.round,
        task=first.task,
        parameters=first.parameters,
        submitter=sender.submitter,
        priority=sender.priority,
        state=state,
        sent_at=now,
    )
    written = []
    for each in rows:
        checked, number = each.checked, each.row.number
        if checked is first or checked.parameters == first.parameters:
            written.append(b"[%d,%b]" % (number, each.payload))
        else:
            own = orjson.dumps(checked.parameters)
            written.append(b"[%d,%b,%b]" % (number, each.payload, own))
    numbers = tuple(each.row.number for each in rows)
    return SentBundle(write_bundle(head, written), numbers)
