"""A row's function and its calls: where they go, and what a journal knows them by."""

import asyncio
import hashlib
import inspect
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from celery import Celery

from modelserver.errors import RequestError
from modelserver.messaging.requests import plain_arguments, split_subject
from modelserver.runs.rollouts.calls import Call, CallCourier, Waiter
from modelserver.runs.row_journal import OldCall

#: Sets of parameters that are remembered, so that equal ones are checked once.
MOST_REMEMBERED = 64
_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY


@dataclass(frozen=True, slots=True)
class RowOutcome:
    """What a row's function returned, or raised."""

    #: The row's place among the rows, from 0.
    number: int
    #: The row as it was given.
    row: Any
    #: What the function returned; with a journal as JSON gives it back.
    value: Any = None
    #: What it raised, with its traceback; None where it returned.
    error: BaseException | None = None


class CallMaker:
    """Makes calls of all rows, for one courier. ``deadline`` is a row's, in seconds."""

    def __init__(
        self, app: Celery, courier: CallCourier, deadline: float | None
    ) -> None:
        self.app = app
        self.courier = courier
        self._deadline = deadline
        self._parameters: dict[bytes, Mapping[str, Any]] = {}

    def make(
        self, task: str, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> tuple[Call, bytes]:
        """A call, and its parameters as JSON. Raises RequestError."""
        args, kwargs = plain_arguments(task, args, kwargs)
        payload, given = split_subject(task, args, kwargs)
        if self._deadline is not None:
            # After that nobody waits for its answer.
            given.setdefault("deadline", self._deadline)
        said = orjson.dumps(given, option=orjson.OPT_SORT_KEYS)
        # The same object for equal ones: by that it is known as checked.
        known = self._parameters.get(said)
        if known is None:
            if len(self._parameters) >= MOST_REMEMBERED:
                self._parameters.clear()
            known = self._parameters[said] = given
        return Call(Waiter(_future()), task, payload, known), said


def _future() -> "asyncio.Future[Any]":
    return asyncio.get_running_loop().create_future()


class RowCalls:
    """The calls that one row's function makes; what ``aio`` asks in its context.

    With a journal, ``row`` is the row's id there and ``old`` what it knows of its
    calls. A call is known by what it asks, and by how often the row has asked that.
    """

    def __init__(
        self, maker: CallMaker, row: int = 0, old: Mapping[bytes, OldCall] | None = None
    ) -> None:
        self.app = maker.app
        self._maker = maker
        #: The row's id in the journal, 0 without one.
        self.row = row
        self._old = dict(old or {})
        self._times: Counter[bytes] = Counter()
        self._is_new = False

    @property
    def is_changed(self) -> bool:
        """Whether it asked other things than an earlier session did."""
        return self._is_new and any(each.answer for each in self._old.values())

    async def ask(self, task: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """The answer to one call. Raises what ``aio`` raises."""
        call, parameters = self._maker.make(task, args, kwargs)
        if self.row:
            call.row = self.row
            call.key = self._key(task, call.payload, parameters)
            if old := self._old.pop(call.key, None):
                if old.answer is not None:
                    return orjson.loads(old.answer)
                call.number = old.number
            else:
                self._is_new = True
        self._maker.courier.put(call)
        return await call.waiter.future

    def _key(self, task: str, payload: Any, parameters: bytes) -> bytes:
        said = orjson.dumps([task, payload], option=orjson.OPT_SORT_KEYS)
        digest = hashlib.blake2b(said + parameters, digest_size=16).digest()
        self._times[digest] += 1
        return digest + self._times[digest].to_bytes(4, "big")


def row_digest(row: Any) -> bytes:
    """What tells a row from others. Raises RequestError for what is no JSON.

    >>> row_digest({"a": 1, "b": 2}) == row_digest({"b": 2, "a": 1})
    True
    """
    try:
        said = orjson.dumps(row, default=_with_columns, option=_OPTIONS)
    except TypeError as error:
        raise RequestError(
            f"a journal cannot know this row again ({error}): give rows of texts, "
            "numbers, lists and objects, or leave journal= out"
        ) from None
    return hashlib.blake2b(said, digest_size=16).digest()


def _with_columns(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        return value._asdict()
    raise TypeError(f"Type is not JSON serializable: {type(value).__name__}")


def as_json(value: Any, name: str) -> bytes:
    """A result as it is kept. Raises RequestError for what JSON cannot carry."""
    try:
        said = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
        # It writes those as null, in place of refusing them.
        if b"null" in said and _has_no_number(value):
            raise TypeError("NaN or infinity")
        return said
    except TypeError as error:
        raise RequestError(
            f"{name}() returned what a journal cannot keep ({error}): return texts, "
            "numbers, lists and objects with texts as keys, or leave journal= out"
        ) from None


def _has_no_number(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_no_number, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_has_no_number, value))
    if hasattr(value, "tolist"):
        return _has_no_number(value.tolist())
    return isinstance(value, float) and not math.isfinite(value)


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling this gives something to be awaited."""
    called = getattr(function, "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def name_of(function: Callable[..., Any]) -> str:
    """What people call it."""
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def source_of(function: Callable[..., Any]) -> tuple[str, str]:
    """The file that it stands in, and its text; each "" where it is not known."""
    while isinstance(function, partial):
        function = function.func
    try:
        return inspect.getsourcefile(function) or "", inspect.getsource(function)
    except (OSError, TypeError):
        return "", ""
