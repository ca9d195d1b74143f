"""Restarts after a change: in which order, and how many at a time."""

from dataclasses import replace

import pytest

from modelserver.inventory import Host
from modelserver.policy.actions import Drop, Relaunch, Want
from modelserver.policy.rolling import Budget, restarts_due, spread
from modelserver.policy.snapshot import Snapshot
from modelserver.values import Cause, EngineReport, EngineSpec, EngineState, Wish

WHY = "context_length changed from 4096 to 8192"


def fleet(count: int, **others: EngineReport) -> Snapshot:
    """Ready engines of one model that are all to be restarted."""
    engines = {
        f"m-{n}": EngineReport(f"m-{n}", "m", "a", EngineState.READY, 1, stale=WHY)
        for n in range(count)
    }
    engines |= {name.replace("_", "-"): engine for name, engine in others.items()}
    wishes = {name: Wish(EngineSpec(name, "m", "a")) for name in engines}
    return Snapshot((), (), (Host("a"),), engines, wishes, {})


def due(snapshot: Snapshot, *busy: str) -> list[str]:
    return [each.engine for each in restarts_due(snapshot, Budget(snapshot), busy)]


@pytest.mark.parametrize(
    ("engines", "at_once"), [(1, 1), (2, 1), (4, 1), (7, 1), (8, 2), (16, 4)]
)
def test_a_quarter_of_a_models_engines_restarts_at_a_time(engines: int, at_once: int):
    assert len(due(fleet(engines))) == at_once


def test_a_restart_says_why():
    (action,) = restarts_due(fleet(1), Budget(fleet(1)), ())
    assert action == Relaunch("m-0", 1, WHY, Cause.CHANGED)


@pytest.mark.parametrize(
    "state",
    [
        EngineState.STARTING,
        EngineState.DRAINING,
        EngineState.BACKOFF,
        EngineState.FATAL,
    ],
)
def test_while_one_is_away_the_others_serve(state: EngineState):
    away = EngineReport("m-9", "m", "a", state, 2)
    assert due(fleet(2, m_9=away)) == []


def test_one_that_was_asked_to_restart_counts_before_it_does():
    snapshot = fleet(2)
    wish = replace(snapshot.wishes["m-0"], relaunch=1)
    asked = replace(snapshot, wishes={**snapshot.wishes, "m-0": wish})
    assert due(asked) == []


@pytest.mark.parametrize(
    "other",
    [
        EngineReport("m-9", "m", "a", EngineState.PENDING, 0),
        EngineReport("m-9", "m", "lost", EngineState.STARTING, 1),
    ],
)
def test_one_that_waits_for_a_place_or_its_host_holds_up_nothing(other: EngineReport):
    assert due(fleet(2, m_9=other)) == ["m-0"]


def test_what_is_about_something_else_already_is_left_alone():
    assert due(fleet(2), "m-0") == ["m-1"]


def test_an_engine_as_the_fleet_says_is_left_alone():
    snapshot = fleet(1)
    same = {"m-0": replace(snapshot.engines["m-0"], stale="")}
    assert due(replace(snapshot, engines=same)) == []


def test_ready_engines_change_place_one_after_the_other():
    snapshot = fleet(2)
    wants = [Want(EngineSpec(f"m-{n}", "m", "a", port=1)) for n in range(2)]
    drop = Drop("x-0", "model x left the fleet")
    new = Want(EngineSpec("m-2", "m", "a"))
    budget = Budget(snapshot)
    assert spread([*wants, drop, new], snapshot, budget) == (wants[0], drop, new)
    assert restarts_due(snapshot, budget, ()) == ()
