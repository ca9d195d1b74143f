"""A run of rollouts that is gone on with after any end."""

import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modelserver.errors import BatchFileError
from modelserver.runs.rollouts.mapping import map_rows
from tests.engine.openai_api import answer_text
from tests.support.processes import ROOT, eventually
from tests.support.workers import PATIENCE, FleetSite

ROWS = 60
#: Two calls a row, over the journal that it is given, with so many rows at once.
PROGRAM = """
import sys
from modelserver import complete, map_rows

async def solve(row):
    draft = await complete.aio(f"{sys.argv[2]} row {row}")
    return await complete.aio(f"{sys.argv[2]} again {row}: {draft}")

rows = range(int(sys.argv[3]))
for done in map_rows(solve, rows, journal=sys.argv[1], at_once=40):
    print(done.number, done.value, flush=True)
"""


def start(fleet: FleetSite, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **fleet.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def executed(fleet: FleetSite, name: str) -> dict[str, int]:
    found = fleet.engines["writer-0"].stats()["executed"]
    return {text: n for text, n in found.items() if text.startswith(name)}


def hanging(fleet: FleetSite) -> bool:
    stats = fleet.engines["writer-0"].stats()
    ended = stats["completed"] + stats["aborted"] + stats["refused"]
    return bool(stats["received"] == ended + 1)


def final(name: str, row: int) -> str:
    draft = answer_text(f"{name} row {row}")
    return answer_text(f"{name} again {row}: {draft}")


def test_nothing_that_was_answered_is_asked_again_after_a_kill(
    fleet: FleetSite, tmp_path: Path
):
    fleet.engines["writer-0"].fault(slow=5)
    arguments = (tmp_path / "solve.sqlite", "killed", ROWS)
    for share in (ROWS // 2, ROWS):
        process = start(fleet, *arguments)
        eventually(lambda s=share: len(executed(fleet, "killed")) > s, within=PATIENCE)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=PATIENCE)
    fleet.engines["writer-0"].fault()
    said, problems = start(fleet, *arguments).communicate(timeout=PATIENCE)
    assert said.splitlines() == [f"{n} {final('killed', n)}" for n in range(ROWS)]
    found = executed(fleet, "killed")
    assert len(found) == 2 * ROWS, problems
    assert set(found.values()) == {1}
    # Done rows are not called again.
    again, _ = start(fleet, *arguments).communicate(timeout=PATIENCE)
    assert again == said
    assert executed(fleet, "killed") == found


def test_ctrl_c_says_what_is_done_and_the_same_call_goes_on(
    fleet: FleetSite, tmp_path: Path
):
    fleet.engines["writer-0"].fault(hang=True, marked="row 9", rate=0.9999)
    arguments = (tmp_path / "solve.sqlite", "stopped", 60)
    process = start(fleet, *arguments)
    assert process.stdout
    assert process.stdout.readline()
    eventually(lambda: hanging(fleet), within=PATIENCE)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=PATIENCE)[1]
    told = r"\d+ of 60 rows are done; .* calls .* still run; the same call goes on"
    assert re.search(told, said), said
    fleet.engines["writer-0"].fault()
    eventually(lambda: not fleet.held(), within=PATIENCE)
    out, problems = start(fleet, *arguments).communicate(timeout=PATIENCE)
    assert len(out.splitlines()) == 60, problems
    counts = executed(fleet, "stopped")
    # What hung may run twice; what was answered may not.
    assert all(n == 1 for text, n in counts.items() if "row 9" not in text)


def test_a_changed_function_and_changed_rows_are_told(
    fleet: FleetSite, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    journal = tmp_path / "solve.sqlite"

    async def first(row: str) -> Any:
        return await fleet.complete.aio(row)

    async def second(row: str) -> Any:
        return await fleet.complete.aio(row) + "!"

    def run(function: Any, rows: list[str]) -> list[Any]:
        with caplog.at_level(logging.WARNING, "modelserver.runs.rollouts"):
            run = map_rows(function, rows, journal=journal, app=fleet.app)
            return [each.value for each in run]

    assert run(first, ["a", "b", "b"]) == [answer_text(text) for text in "abb"]
    before = executed(fleet, "")
    assert caplog.messages == []
    assert run(second, ["b", "c", "b"]) == [
        *(answer_text("b"), answer_text("c") + "!", answer_text("b"))
    ]
    changed, others = caplog.messages
    assert changed.startswith("second() is not what it was when")
    assert "has 1 rows that are not among these, 1 of them done" in others
    after = executed(fleet, "")
    assert {text: n - before.get(text, 0) for text, n in after.items()}["b"] == 0


def test_a_journal_has_one_user_at_a_time(fleet: FleetSite, tmp_path: Path):
    async def same(row: int) -> int:
        return row

    outcomes = iter(map_rows(same, [1, 2], journal=tmp_path / "j", app=fleet.app))
    next(outcomes)
    with pytest.raises(BatchFileError, match="is used by another program"):
        list(map_rows(same, [1], journal=tmp_path / "j", app=fleet.app))
    assert [each.value for each in outcomes] == [2]
    (tmp_path / "text").write_text("no journal " * 500)
    with pytest.raises(BatchFileError, match="is no journal"):
        list(map_rows(same, [1], journal=tmp_path / "text", app=fleet.app))
