"""What applying a fleet file changes, refuses and waits for."""

from collections.abc import Mapping
from dataclasses import replace

from modelserver.control.applied_fleet import compose
from modelserver.control.applying import (
    SETTLED_SECONDS,
    UNSEEN,
    UNSEEN_SECONDS,
    Convergence,
    Proposal,
    Settling,
    difference,
    still_missing,
)
from modelserver.fleet.file import Fleet
from modelserver.fleet.sections import ModelSection
from modelserver.inventory import Host
from modelserver.policy.changes import FleetSpec
from modelserver.policy.convergence import FleetView, OpenEnd
from modelserver.values import (
    EngineReport,
    EngineSpec,
    EngineState,
    Kind,
    ModelSpec,
    Wish,
)

SLOW = OpenEnd("m-0 is STARTING")
DEAD = OpenEnd("m-0 is FATAL", hopeless=True)
START = Convergence(began=10.0, within=60.0, now=10.0)


def fleet(*names: str) -> Fleet:
    return Fleet(
        models=tuple(
            ModelSection(name=n, path="/m", engine="sglang-cpu") for n in names
        )
    )


def proposal(before: Fleet | None, after: Fleet, queued: Mapping[str, int]) -> Proposal:
    applied = compose(before, None, now=5.0) if before else None
    return Proposal(after, applied, difference(applied, after), queued, at=6.0)


def test_the_first_fleet_starts_everything():
    first = proposal(None, fleet("m"), {})
    assert first.lines() == ("model m: added", "model m: starts m-0")
    assert not first.changes_nothing


def test_the_fleet_in_force_changes_nothing():
    assert proposal(fleet("m"), fleet("m"), {}).changes_nothing


def test_a_model_that_requests_wait_for_is_not_removed_without_force():
    refusal = proposal(fleet("m", "n"), fleet("n"), {"m": 2}).find_refusal()
    assert refusal
    assert "2 requests wait in the queue of m" in refusal
    assert "--force" in refusal


def test_nothing_is_refused_where_nothing_waits():
    assert proposal(fleet("m", "n"), fleet("n"), {}).find_refusal() is None


def test_a_fleet_is_done_once_nothing_was_missing_for_a_while():
    looks = START.after((SLOW,), 11.0).after((), 12.0)
    assert looks.settling() is Settling.UNDER_WAY
    assert looks.after((), 12.0 + SETTLED_SECONDS).settling() is Settling.DONE


def test_what_is_missing_again_starts_the_while_anew():
    looks = START.after((), 11.0).after((SLOW,), 12.0).after((), 13.0)
    assert looks.after((), 14.0).settling() is Settling.UNDER_WAY


def test_waiting_ends_where_it_cannot_help():
    assert START.after((DEAD,), 11.0).settling() is Settling.STUCK
    assert START.after((DEAD, SLOW), 11.0).settling() is Settling.UNDER_WAY


def test_waiting_ends_after_its_time():
    assert START.after((SLOW,), 71.0).settling() is Settling.LATE


def test_without_a_launcher_nothing_is_waited_for():
    looks = START.after(None, 11.0)
    assert looks.settling() is Settling.UNATTENDED
    assert looks.to_tell() == ()


def test_control_gets_a_moment_before_people_hear_that_it_has_not_looked():
    assert START.after(UNSEEN, 11.0).to_tell() == ()
    assert START.after(UNSEEN, 10.5 + UNSEEN_SECONDS).to_tell() == UNSEEN
    assert START.after((SLOW,), 11.0).to_tell() == (SLOW,)


def changed(engines: int, failed: int, relaunch: int = 0) -> list[OpenEnd]:
    """What is missing of a model whose first engines failed under its new section."""
    model = ModelSpec("m", Kind.COMPLETION, "/m", "sglang", min_engines=engines)
    spec = FleetSpec((replace(model, max_engines=engines),))
    names = [f"m-{n}" for n in range(engines)]
    wishes = {n: Wish(EngineSpec(n, "m", "a"), relaunch=relaunch) for n in names}
    fatal, ready = EngineState.FATAL, EngineState.READY
    reports = {
        name: EngineReport(name, "m", "a", fatal, 2)
        if number < failed
        else EngineReport(name, "m", "a", ready, 1, stale="gpus changed")
        for number, name in enumerate(names)
    }
    view = FleetView((Host("a", fleet=2),), reports, wishes)
    return list(still_missing(spec, 2, frozenset("m"), view))


def test_a_restart_that_waits_for_an_engine_that_failed_for_good_never_comes():
    assert [end.hopeless for end in changed(2, failed=1)] == [True, True]
    # Of eight, two may be away: another one is still tried.
    assert [end.hopeless for end in changed(8, failed=1)].count(False) == 7
    assert all(end.hopeless for end in changed(8, failed=2))


def test_a_failed_engine_that_is_to_be_tried_again_holds_up_no_restart_for_good():
    assert not all(end.hopeless for end in changed(2, failed=1, relaunch=2))
