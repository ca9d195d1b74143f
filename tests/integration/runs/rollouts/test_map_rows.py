"""An async function of each row, with several calls, by real workers."""

import asyncio
import itertools
import logging
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from modelserver.errors import DeadlineExceededError, RequestError
from modelserver.runs.rollouts.mapping import RowRun
from modelserver.runs.rollouts.mapping import map_rows as map_any
from tests.engine.openai_api import answer_text
from tests.support.processes import eventually
from tests.support.workers import PATIENCE, FleetSite

ROWS = [{"question": f"question {place}"} for place in range(200)]


def map_rows(fleet: FleetSite, function: Any, rows: Any, **more: Any) -> RowRun:
    return map_any(function, rows, app=fleet.app, **more)


def solver(fleet: FleetSite) -> Any:
    """Two calls, of which the second has the answer of the first in it."""

    async def solve(row: dict[str, str]) -> str:
        draft = await fleet.complete.aio(row["question"])
        said = [{"role": "user", "content": draft}]
        return str(await fleet.chat.aio(said, max_tokens=8))

    return solve


def expected(row: dict[str, str]) -> str:
    return answer_text(answer_text(row["question"]))


def test_calls_that_depend_on_each_other_are_answered_in_bulk(fleet: FleetSite):
    outcomes = list(map_rows(fleet, solver(fleet), iter(ROWS)))
    assert [each.row for each in outcomes] == ROWS
    assert [each.value for each in outcomes] == [expected(row) for row in ROWS]
    # Rows of a run leave no result of their own behind.
    assert not list(fleet.store.client.scan_iter("ms:celery-task-meta-*"))


def test_an_asyncio_loop_runs_the_function_itself(fleet: FleetSite):
    async def main() -> list[str]:
        loop, solve = asyncio.get_running_loop(), solver(fleet)

        async def own(row: dict[str, str]) -> str:
            assert asyncio.get_running_loop() is loop
            return str(await solve(row))

        run = map_rows(fleet, own, ROWS[:20], ordered=False)
        return sorted([each.value async for each in run])

    assert asyncio.run(main()) == sorted(expected(row) for row in ROWS[:20])


def test_a_loop_that_is_cancelled_says_what_is_done(
    fleet: FleetSite, caplog: pytest.LogCaptureFixture
):
    fleet.engines["writer-0"].fault(hang=True, marked="row 3", rate=0.9999)

    async def ask(row: int) -> Any:
        return await fleet.complete.aio(f"row {row}")

    async def main() -> None:
        async for done in map_rows(fleet, ask, range(5)):
            if done.number == 2:
                asyncio.current_task().cancel()  # type: ignore[union-attr]

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert "of 5 rows are done; 0 calls that waited are cancelled" in caplog.text


def test_tasks_that_a_function_leaves_end_with_the_run(fleet: FleetSite):
    async def leave(row: int) -> int:
        tasks.append(asyncio.ensure_future(asyncio.sleep(3600)))
        return row

    tasks: list[Any] = []
    assert len(list(map_rows(fleet, leave, range(3)))) == 3
    assert [task.cancelled() for task in tasks] == [True] * 3


def test_calls_of_a_row_may_be_made_together(fleet: FleetSite):
    async def both(row: int) -> list[Any]:
        calls = (fleet.complete.aio(f"{row}{part}") for part in "ab")
        return [*await asyncio.gather(*calls), len(await fleet.embed.aio("text"))]

    outcomes = list(map_rows(fleet, both, range(20)))
    assert outcomes[7].value[:2] == [answer_text("7a"), answer_text("7b")]
    assert all(each.value[2] > 1 for each in outcomes)


def test_an_endless_iterable_is_read_as_rows_are_done(fleet: FleetSite):
    pulled = itertools.count()

    async def ask(row: str) -> Any:
        return await fleet.complete.aio(row)

    run = map_rows(fleet, ask, (f"row {place}" for place in pulled), at_once=20)
    assert len(list(itertools.islice(run, 200))) == 200
    assert next(pulled) < 200 + 5 * 20
    eventually(lambda: not fleet.held(), within=PATIENCE)


async def fussy(row: int) -> int:
    if row == 3:
        raise KeyError("no such thing")
    return row


def test_an_error_of_the_function_is_that_of_its_row(fleet: FleetSite):
    run = map_rows(fleet, fussy, range(6), on_error="return")
    outcomes = list(run)
    assert [each.value for each in outcomes] == [0, 1, 2, None, 4, 5]
    error = outcomes[3].error
    assert isinstance(error, KeyError)
    assert error.__notes__ == ["in row 3 of map_rows()"]
    frames = error.__traceback__
    while frames and frames.tb_next:
        frames = frames.tb_next
    assert frames
    assert frames.tb_frame.f_code.co_name == "fussy"
    assert (run.done, run.failed) == (6, 1)


def test_an_error_is_raised_or_left_out(fleet: FleetSite):
    outcomes = iter(map_rows(fleet, fussy, range(6)))
    assert [next(outcomes).value for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError):
        next(outcomes)
    skipped = map_rows(fleet, fussy, range(6), on_error="skip")
    assert [each.value for each in skipped] == [0, 1, 2, 4, 5]


def test_errors_of_calls_are_raised_in_the_function(fleet: FleetSite):
    fleet.engines["writer-0"].fault(status=400, marked="refused")

    async def ask(row: str) -> str:
        try:
            return str(await fleet.complete.aio(row))
        except RequestError as error:
            return f"{type(error).__name__}: {error}"

    found = [each.value for each in map_rows(fleet, ask, ["", "refused", "fine"])]
    assert found[0].startswith("RequestError: prompt is empty")
    assert "writer refused the request" in found[1]
    assert found[2] == answer_text("fine")


def test_a_row_has_a_deadline(fleet: FleetSite):
    fleet.engines["writer-0"].fault(hang=True, marked="slow", rate=0.9999)

    async def ask(row: str) -> Any:
        return await fleet.complete.aio(row)

    (fine,) = map_rows(fleet, ask, ["fine"], deadline=PATIENCE)
    assert fine.value == answer_text("fine")
    (slow,) = map_rows(fleet, ask, ["slow"], on_error="return", deadline=2)
    assert isinstance(slow.error, DeadlineExceededError)
    eventually(lambda: not fleet.in_flight("writer-0"), within=PATIENCE)


def test_a_wrong_iterable_ends_the_run(fleet: FleetSite):
    def rows() -> Any:
        yield 1
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(map_rows(fleet, fussy, rows()))


def test_a_function_may_end_the_program(fleet: FleetSite):
    async def leave(row: int) -> int:
        return row if row < 3 else sys.exit(7)

    with pytest.raises(SystemExit, match="7"):
        list(map_rows(fleet, leave, range(5)))


def test_a_function_that_blocks_is_named(
    fleet: FleetSite, caplog: pytest.LogCaptureFixture
):
    async def block(row: int) -> int:
        time.sleep(6)  # noqa: ASYNC251
        return row

    with caplog.at_level(logging.WARNING, "modelserver.runs.rollouts"):
        assert [each.value for each in map_rows(fleet, block, [1])] == [1]
    here = [each for each in caplog.records if each.name.startswith("modelserver.runs")]
    (said,) = [each.message for each in here]
    assert "has stood still" in said
    assert f"in block ({__file__}, line" in said


def test_what_cannot_be_kept_is_an_error_of_its_row(fleet: FleetSite, tmp_path: Path):
    async def both(row: Any) -> Any:
        return {row} if row == "set" else (row, 1)

    rows = ["set", "fine", object()]
    run = map_rows(fleet, both, rows, on_error="return", journal=tmp_path / "j")
    found = list(run)
    assert "both() returned what a journal cannot keep" in str(found[0].error)
    assert found[1].value == ["fine", 1]
    assert "a journal cannot know this row again" in str(found[2].error)


@pytest.mark.parametrize(
    ("arguments", "more", "words"),
    [
        ((len, [1]), {}, "takes an async function"),
        ((fussy, "text"), {}, "put a text into a list"),
        ((fussy, [1]), {"priority": "high"}, "from 0, the most urgent, to 9"),
        ((fussy, [1]), {"deadline": -1}, "seconds above 0"),
        ((fussy, [1]), {"at_once": "many"}, "at_once must be 1 or more"),
    ],
)
def test_wrong_arguments_are_refused_at_once(
    arguments: Any, more: dict[str, Any], words: str
):
    with pytest.raises(RequestError, match=words):
        map_any(*arguments, **more)
