"""How far runs of programs are, as others see it."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from modelserver.cli import cli
from modelserver.runs.embedding import embed_texts
from modelserver.runs.mapping import map_prompts
from modelserver.runs.rollouts.mapping import map_rows
from modelserver.runs.telling import RunTeller
from modelserver.settings import load
from modelserver.store.runs.programs import (
    ProgramRun,
    read_program_runs,
    tell_program_run,
)
from tests.support.batch_files import batch_line, names, start_batch, write_lines
from tests.support.processes import ValkeyProcess, end, eventually
from tests.support.workers import PATIENCE, FleetSite

ROWS = [f"row {place}" for place in range(40)]


def going(fleet: FleetSite, what: str) -> list[ProgramRun]:
    runs = read_program_runs(fleet.store)
    return [each for each in runs if each.what == what and not each.end]


def lasting(fleet: FleetSite, what: str, seen: list[ProgramRun]) -> Iterator[str]:
    """Rows, of which all but the first come once the run was told of."""
    yield ROWS[0]
    seen += eventually(lambda: going(fleet, what), PATIENCE)
    yield from ROWS[1:]


def prompts(fleet: FleetSite, rows: Iterator[str]) -> list[Any]:
    return list(map_prompts(rows, app=fleet.app, model="writer"))


def texts(fleet: FleetSite, rows: Iterator[str]) -> Any:
    return embed_texts(rows, app=fleet.app, model="vectors")


def rows(fleet: FleetSite, rows: Iterator[str]) -> list[Any]:
    async def solve(row: str) -> Any:
        return await fleet.complete.aio(row)

    return list(map_rows(solve, rows, app=fleet.app))


@pytest.mark.parametrize("run", [prompts, texts, rows])
def test_a_run_is_seen_while_it_goes_on_and_after_its_end(
    fleet: FleetSite, run: Callable[[FleetSite, Iterator[str]], Any]
):
    what, seen = run.__name__, list[ProgramRun]()
    assert len(run(fleet, lasting(fleet, what, seen))) == len(ROWS)
    assert not going(fleet, what)
    assert seen[0].done <= 1
    last = {each.id: each for each in read_program_runs(fleet.store)}[seen[0].id]
    assert (last.done, last.failed, last.total) == (len(ROWS), 0, None)
    assert last.state(last.told_at) == "completed"


def test_what_is_left_half_way_is_told_as_stopped(fleet: FleetSite):
    seen: list[ProgramRun] = []
    for _ in map_prompts(
        lasting(fleet, "prompts", seen), app=fleet.app, model="writer"
    ):
        if seen:
            break
    last = {each.id: each for each in read_program_runs(fleet.store)}[seen[0].id]
    assert last.state(last.told_at) == "stopped"


def test_batch_list_has_programs_too(fleet: FleetSite):
    seen: list[ProgramRun] = []
    prompts(fleet, lasting(fleet, "prompts", seen))
    runner = CliRunner(env=fleet.environment)
    found = json.loads(runner.invoke(cli, ["batch", "list", "--json"]).stdout)
    (listed,) = (each for each in found if each["id"] == seen[0].id)
    assert (listed["state"], listed["answered"]) == ("completed", len(ROWS))
    assert listed["file"].startswith("prompts of ")
    said = runner.invoke(cli, ["batch", "list"]).stdout
    assert seen[0].id in said


def test_a_file_that_is_run_in_a_terminal_is_seen_from_others(
    fleet: FleetSite, tmp_path: Path
):
    lines = [batch_line(f"row-{n}", f"prompt {n}") for n in range(20_000)]
    source, out = write_lines(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"

    def told() -> ProgramRun:
        return {each.id: each for each in read_program_runs(fleet.store)}[seen.id]

    fleet.engines["writer-0"].fault(slow=20)
    process = start_batch(fleet.environment, source, "-o", out)
    try:
        (seen, *_) = eventually(lambda: going(fleet, "rows"), PATIENCE)
        assert (seen.program, seen.total) == ("in.jsonl", 20_000)
        eventually(lambda: told().done, PATIENCE)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
    finally:
        end(process, PATIENCE)
        fleet.engines["writer-0"].fault()
    assert told().end == "stopped"
    assert 0 < told().done == len(names(out)) < 20_000


def test_a_program_that_is_gone_is_silent():
    run = ProgramRun("map-1", "prompts", 100, 50, rate=0.5, told_at=200.0)
    assert run.state(210.0) == "running"
    assert run.eta_seconds == 100.0
    assert run.state(216.0) == "silent"
    assert replace(run, end="stopped").state(216.0) == "stopped"
    assert replace(run, total=None).eta_seconds is None


def test_no_more_runs_are_kept_than_are_listed(fleet: FleetSite):
    runs = [ProgramRun(f"map-{n}", "old", told_at=1.0 + n) for n in range(120)]
    for run in runs:
        tell_program_run(fleet.store, run)
    kept = {each.id for each in read_program_runs(fleet.store) if each.what == "old"}
    assert len(kept) <= 100
    assert "map-0" not in kept
    assert "map-119" in kept


def test_a_run_is_held_up_by_no_server_that_is_away(fleet: FleetSite, tmp_path: Any):
    valkey = ValkeyProcess(tmp_path)
    away = load({**fleet.environment, "MODELSERVER_REDIS_URL": valkey.url})
    teller = RunTeller(away, "map-2", ("prompts", 1), lambda: (0, 0))
    began = time.monotonic()
    teller.end(False)
    assert time.monotonic() - began < 5
