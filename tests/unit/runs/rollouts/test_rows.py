"""One row's calls, and what they are known by."""

import asyncio
import math
from collections import namedtuple
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from modelserver.errors import RequestError
from modelserver.messaging.wire import COMPLETE
from modelserver.runs.rollouts.calls import Call
from modelserver.runs.rollouts.rows import (
    CallMaker,
    RowCalls,
    as_json,
    is_async,
    name_of,
    row_digest,
)
from modelserver.runs.row_journal import OldCall


@dataclass
class Courier:
    """Answers each call at once by its prompt, and remembers it."""

    calls: list[Call] = field(default_factory=list)

    def put(self, call: Any) -> None:
        self.calls.append(call)
        call.waiter.future.set_result(call.payload)


Asked = list[tuple[str, dict[str, Any]]]


def asked(
    calls: Asked, old: Mapping[bytes, OldCall] | None = None, **options: Any
) -> tuple[list[Any], list[Call], RowCalls]:
    courier: Any = Courier()
    app: Any = None

    async def main() -> tuple[list[Any], RowCalls]:
        maker = CallMaker(app, courier, options.get("deadline"))
        row = RowCalls(maker, 7, old)
        return [await row.ask(COMPLETE, (p,), more) for p, more in calls], row

    values, row = asyncio.run(main())
    return values, courier.calls, row


def test_a_call_is_known_by_what_it_asks_and_how_often():
    _, calls, _ = asked([("a", {}), ("a", {}), ("b", {}), ("a", {"seed": 1})])
    assert len({call.key for call in calls}) == 4
    _, again, _ = asked([("b", {}), ("a", {"seed": 1}), ("a", {}), ("a", {})])
    assert {call.key for call in again} == {call.key for call in calls}


def test_a_call_that_was_answered_is_not_made():
    _, (first, second), _ = asked([("a", {}), ("b", {})])
    old = {first.key: OldCall(5, b'"kept"'), second.key: OldCall(6, None)}
    values, calls, row = asked([("a", {}), ("b", {}), ("c", {})], old)
    assert values == ["kept", "b", "c"]
    assert [call.number for call in calls] == [6, -1]
    assert not row.is_changed
    _, _, row = asked([("c", {})], old)
    assert row.is_changed


def test_equal_parameters_are_the_same_object():
    many = [(f"{n}", {"max_tokens": 4, "seed": 1}) for n in range(3)]
    _, calls, _ = asked(many, deadline=5)
    assert len({id(call.parameters) for call in calls}) == 1
    assert calls[0].parameters == {"max_tokens": 4, "seed": 1, "deadline": 5}


def test_a_wrong_call_is_refused_where_it_is_made():
    with pytest.raises(RequestError, match=r"complete\(\) got its prompt twice"):
        asked([("a", {"prompt": "b"})])
    with pytest.raises(RequestError, match="NaN"):
        asked([("a", {"temperature": float("nan")})])


def test_rows_of_any_json_have_a_digest():
    pair = namedtuple("pair", "n text")
    rows = [1, "1", {"a": 1}, {"a": [1, None]}, [1], pair(1, "x"), {1: 2}]
    assert len({row_digest(row) for row in rows}) == len(rows)
    numpy = pytest.importorskip("numpy")
    assert row_digest({"n": numpy.int64(7)}) == row_digest({"n": 7})
    with pytest.raises(RequestError, match="leave journal= out"):
        row_digest(object())


def test_a_result_that_json_would_change_is_refused():
    numpy = pytest.importorskip("numpy")
    nan = float("nan")
    for value in (
        *(nan, [1, (nan,)], {"a": {"b": -math.inf}}),
        *(numpy.float32(nan), {"a": numpy.array([1.0, nan])}),
    ):
        with pytest.raises(RequestError, match=r"solve\(\) returned .* \(NaN or infin"):
            as_json(value, "solve")
    kept = {"a": None, "b": [numpy.array([1.5]), "null"]}
    assert as_json(kept, "solve") == b'{"a":null,"b":[[1.5],"null"]}'


async def solve(row: Any) -> Any:
    return row


class Solver:
    async def __call__(self, row: Any) -> Any:
        return row


def test_functions_are_async_however_they_are_made():
    functions = [solve, partial(solve), Solver()]
    assert [is_async(each) for each in functions] == [True] * 3
    assert [name_of(each) for each in functions] == ["solve", "solve", "Solver"]
    assert not is_async(lambda row: row)


def test_results_are_json():
    assert as_json({"a": (1, "x")}, "solve") == b'{"a":[1,"x"]}'
    for value in (object(), {1: 2}, {"a"}):
        with pytest.raises(RequestError, match=r"solve\(\) returned what a journal"):
            as_json(value, "solve")
