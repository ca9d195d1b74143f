"""Runs as lists show them."""

from dataclasses import replace

from modelserver.runs.hosting.telling import RunView
from modelserver.runs.listed import in_order, list_program_run, list_submitted
from modelserver.store.runs.hosted import HostedRun, SubmittedRun
from modelserver.store.runs.programs import ProgramRun

NOW = 1_000.0
RUN = ProgramRun(
    "map-1", "prompts", 100, 50, 2, "h1", "ada", 7, "night.py", 0.5, 900.0, NOW
)
SUBMITTED = HostedRun(SubmittedRun("run1", "/in", "/out", 10, host="h1", at=950.0))


def test_a_run_that_goes_on_is_hidden_by_none_that_is_over():
    """However many began later than it."""
    over = [
        replace(RUN, id=f"map-{n}", end="stopped", began_at=900.0 + n)
        for n in range(2, 30)
    ]
    silent = replace(RUN, id="dead", told_at=NOW - 60)
    programs = [*over, silent, replace(RUN, began_at=1.0)]
    runs = [list_program_run(each, NOW) for each in programs]
    found = in_order(runs, 3)
    assert [each.id for each in found] == ["map-1", "dead", "map-29", "map-28"]


def test_a_run_that_was_submitted_is_listed_as_that():
    submitted = list_submitted(SUBMITTED, RunView(SUBMITTED), (), NOW)
    before = list_program_run(replace(RUN, id="run1", end="stopped"), NOW)
    assert in_order([submitted, before], 3) == [submitted]


def test_only_what_goes_on_has_a_rate():
    going = list_program_run(RUN, NOW)
    assert (going.rate, going.eta_seconds, going.note) == (0.5, 100.0, "")
    assert (going.answered, going.failed, going.done) == (48, 2, 50)
    silent = list_program_run(RUN, NOW + 60)
    assert (silent.rate, silent.eta_seconds) == (None, None)
    assert silent.note.startswith("last told 60.0 s ago")


def test_a_run_that_is_carried_out_waits_for_engines():
    told = {"asked": ["writer"], "ready_engines": {"writer": [0, 2]}}
    held = replace(SUBMITTED, progress=told, until=NOW + 5, holder="h1-9")
    listed = list_submitted(held, RunView(held), (), NOW)
    assert listed.holder == "h1-9"
    assert listed.note.startswith("0 of 2 engines of writer are ready")
    left = replace(held, until=NOW - 5)
    listed = list_submitted(left, RunView(left), (), NOW)
    assert (listed.holder, listed.rate) == ("", None)
    assert listed.note.startswith("no process `modelserver batches` runs")
