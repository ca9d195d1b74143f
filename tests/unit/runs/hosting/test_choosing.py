"""Which submitted runs a process takes, how they stand, and what a name means."""

from dataclasses import replace
from typing import Any

import pytest

from modelserver.errors import ModelserverError
from modelserver.runs.hosting.choosing import (
    find_left_behind,
    find_obstacle,
    find_run_id,
    find_takeable,
)
from modelserver.store.runs.hosted import (
    HolderReport,
    HostedRun,
    RunOrder,
    RunStanding,
    RunState,
    SubmittedRun,
)

NOW = 1000.0


def hosted(name: str = "run1", at: float = 0.0, **values: Any) -> HostedRun:
    options = {"priority": values.pop("priority", None)}
    run = SubmittedRun(name, "/in", "/out", 10, host="h1", at=at, options=options)
    standing = RunStanding(values.pop("told", RunState.WAITING))
    standing = replace(standing, again_at=values.pop("again_at", 0.0))
    return HostedRun(run, standing, **values)


def taken(*runs: HostedRun, held: tuple[str, ...] = ()) -> list[str]:
    return [each.run.id for each in find_takeable(runs, held, NOW)]


def test_the_most_urgent_run_is_first_then_the_first_submitted():
    runs = [
        hosted("late", at=3),
        hosted("early", at=1),
        hosted("idle", priority=9),
        hosted("urgent", at=9, priority=0),
    ]
    assert taken(*runs) == ["early", "late", "urgent", "idle"]


def test_a_run_that_somebody_holds_is_left():
    assert taken(hosted(until=NOW + 1), hosted("mine"), held=("mine",)) == []


def test_a_run_whose_holder_died_is_taken():
    found = hosted(told=RunState.RUNNING, holder="h1-7", until=NOW)
    assert found.state(NOW) == RunState.WAITING
    assert taken(found) == ["run1"]


@pytest.mark.parametrize("told", [RunState.COMPLETED, RunState.FAILED])
def test_a_run_that_has_ended_is_left(told: RunState):
    assert taken(hosted(told=told)) == []


@pytest.mark.parametrize(
    ("order", "held", "free"),
    [
        (RunOrder.PAUSE, RunState.PAUSING, RunState.PAUSED),
        (RunOrder.CANCEL, RunState.CANCELLING, RunState.CANCELLED),
    ],
)
def test_what_operators_want_is_seen_at_once(
    order: RunOrder, held: RunState, free: RunState
):
    assert hosted(order=order, until=NOW + 1).state(NOW) == held
    assert hosted(order=order).state(NOW) == free
    assert hosted(order=order, told=RunState.COMPLETED).state(NOW) == "completed"
    assert taken(hosted(order=order)) == []


def test_a_run_that_was_resumed_while_it_was_paused_goes_on():
    assert taken(hosted(told=RunState.PAUSED), hosted("b", told=RunState.CANCELLED))


def test_a_run_waits_for_room_on_its_disk():
    full = hosted(told=RunState.PAUSED, again_at=NOW + 1)
    assert full.state(NOW) == RunState.PAUSED
    assert taken(full) == []
    assert taken(replace(full, standing=replace(full.standing, again_at=NOW - 1)))


def test_what_a_dead_holder_had_to_do_is_found():
    left = hosted("left", order=RunOrder.CANCEL, holder="h1-7", until=NOW - 1)
    others = [
        hosted("done", order=RunOrder.CANCEL),
        hosted("doing", order=RunOrder.CANCEL, holder="h1-8", until=NOW + 1),
        hosted("dead", holder="h1-9", until=NOW - 1),
    ]
    assert find_left_behind([left, *others], NOW) == [left]


def test_a_name_may_be_short_where_it_is_clear():
    ids = ["runab12", "runac34", "runb"]
    assert find_run_id("runab", ids) == "runab12"
    assert find_run_id("ac", ids) == "runac34"
    with pytest.raises(ModelserverError, match="a may be any of runab12, runac34"):
        find_run_id("a", ids)
    for name in ("c", ""):
        with pytest.raises(ModelserverError, match="there is no run"):
            find_run_id(name, ids)


def test_a_run_waits_where_nobody_sees_its_files():
    found, seen = hosted(), HolderReport("h1-1", "h1")
    blind = HolderReport("h2-1", "h2", unseen={"run1": "h2 does not see /in"})
    assert "no process" in find_obstacle(found, (), NOW)
    told = find_obstacle(found, (blind,), NOW)
    assert told.startswith("h2 does not see /in. It was submitted on h1")
    assert find_obstacle(found, (blind, seen), NOW) == ""
    assert find_obstacle(hosted(until=NOW + 1), (), NOW) == ""
