"""What applying a fleet file changes, refuses and waits for."""

from collections.abc import Mapping

from modelserver.control.applied_fleet import compose
from modelserver.control.applying import (
    SETTLED_SECONDS,
    UNSEEN,
    UNSEEN_SECONDS,
    Convergence,
    Proposal,
    Settling,
    difference,
)
from modelserver.fleet.file import Fleet
from modelserver.fleet.sections import ModelSection
from modelserver.policy.convergence import OpenEnd

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
