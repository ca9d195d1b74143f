"""Engines that are slow by their requests although their canaries pass."""

import math
from dataclasses import replace

import pytest

from modelserver.policy.health.accepting import (
    FOLLOW_LOOKS,
    LESS_TICKS,
    UNWELL_TICKS,
    WELL_TICKS,
)
from modelserver.policy.health.memory import Health
from modelserver.policy.health.tallies import Tallies
from modelserver.values import Cause, Outcome
from tests.support.control import (
    Scene,
    alerts,
    canaries,
    relaunches,
    samples,
    verifying,
)

LN3 = math.log(3)


def accepted(**memory) -> Scene:
    """A scene whose first engine takes three times as long, which is accepted."""
    usual = {
        "health": Health.DEGRADED,
        "accepted": LN3,
        "residual": LN3,
        "slowdown": 3.0,
        "passes": 2,
        "since": 10_000.0,
        "quiet_until": 10_600.0,
        "reason": "its requests take 3.0x",
    }
    scene = Scene(**usual | memory)
    scene.slow(times=3.0)
    return scene


def pass_canaries(scene: Scene) -> list[str]:
    """The drained engine is empty, and its canaries pass; returns what is told."""
    scene.empty()
    scene.look()
    scene.canaries["m-0"] = canaries(at=scene.now)
    return alerts(scene.look())


def test_what_is_accepted_is_not_acted_on_and_costs_no_place():
    scene = accepted()
    scene.looks(20)
    assert scene.own.health is Health.DEGRADED
    assert scene.wishes["m-0"].limit == 0
    assert scene.wishes["m-0"].degraded == "its requests take 3.0x"


def test_a_second_fault_is_found_as_fast_as_a_first():
    scene = accepted()
    scene.slow(times=6.0)
    scene.looks(3)
    assert (scene.own.health, scene.own.cause) == (Health.DRAINING, Cause.SLOW)
    assert "2.00x of what its requests explain beyond 3.00x" in scene.own.reason
    scene.empty()
    scene.look()
    scene.canaries["m-0"] = canaries(idle=0.5, loaded=0.6, at=scene.now)
    assert relaunches(scene.look()) == ["m-0"]
    scene.report("m-0", incarnation=2)
    scene.look()
    assert (scene.own.accepted, scene.own.offset) == (0.0, None)


def test_slow_canaries_are_found_too_although_it_is_quiet():
    scene = accepted()
    scene.give_gpus()
    scene.canaries["m-0"] = canaries(idle=0.5, at=scene.now + 10)
    scene.looks(3)
    assert (scene.own.health, scene.own.cause) == (
        Health.DRAINING,
        Cause.SLOW_CANARIES,
    )


def test_failures_are_found_too():
    scene = accepted()
    scene.samples["m-0"] = samples(outcome=Outcome.ENGINE_FAULT)
    scene.looks(2)
    assert (scene.own.health, scene.own.cause) == (Health.DRAINING, Cause.ERRORS)


def test_if_it_may_not_be_relaunched_nothing_is_accepted_any_longer():
    scene = accepted(relaunch_from=99_999.0)
    scene.slow(times=6.0)
    scene.looks(3)
    scene.empty()
    scene.look()
    scene.canaries["m-0"] = canaries(idle=0.5, loaded=0.6, at=scene.now)
    scene.look()
    assert (scene.own.health, scene.own.accepted) == (Health.DEGRADED, 0.0)
    assert scene.wishes["m-0"].limit == 16


@pytest.mark.parametrize(
    ("times", "since", "news"),
    [(6.5, 8_700.0, True), (5.5, 8_700.0, False), (6.5, 9_000.0, False)],
)
def test_people_are_told_again_of_much_more_that_lasts(
    times: float, since: float, news: bool
):
    scene = accepted(accepted=math.log(times), residual=math.log(times), since=since)
    scene.slow(times=times)
    told = alerts(scene.look())
    assert bool(told) is news
    assert scene.own.slowdown == pytest.approx(times if news else 3.0)
    assert alerts(scene.look()) == []


def test_what_goes_up_and_down_is_no_news():
    scene = accepted()
    scene.slow(times=6.0)
    scene.looks(3)
    assert pass_canaries(scene) == []
    assert scene.own.accepted == pytest.approx(math.log(6.0))
    assert (scene.own.passes, scene.own.slowdown) == (3, 3.0)


def test_the_first_time_people_are_told_however_little_it_is():
    scene = Scene(passes=1)
    scene.slow(times=1.59)
    scene.looks(3)
    (text,) = pass_canaries(scene)
    assert text.startswith("its requests take 1.6x")
    assert scene.own.slowdown == pytest.approx(1.59)


def test_what_was_late_while_it_was_known_to_be_slow_makes_no_stutter():
    late = Tallies(since=9_000.0, cells=((16, 300.0, 30.0, 10.0, 30.0),), pauses=9.0)
    scene = Scene(accepted=LN3, quiet_until=10_015.0, tallies=late)
    scene.samples["m-0"] = ()
    scene.memory = replace(scene.memory, judged_at=scene.now)
    scene.look()
    assert scene.own.tallies.pauses
    scene.look()
    assert (scene.own.accepted, scene.own.tallies) == (0.0, Tallies())


def test_what_is_accepted_follows_what_is_measured():
    scene = accepted()
    scene.slow(times=2.0)
    scene.look()
    down = math.log(2 / 3) / FOLLOW_LOOKS
    assert scene.own.accepted == pytest.approx(LN3 + down)
    scene.slow(times=3.6)
    for _ in range(300):
        scene.slow(times=3.6)
        scene.remember("m-0", since=scene.now)
        scene.look()
    assert scene.own.accepted == pytest.approx(math.log(3.6), abs=0.01)
    scene.samples["m-0"] = ()
    scene.look()
    assert scene.own.accepted == pytest.approx(math.log(3.6), abs=0.01)


def test_it_is_healthy_again_when_it_is_not_slow_any_longer():
    scene = accepted()
    scene.slow(times=1.0)
    scene.looks(WELL_TICKS - 1)
    assert scene.own.health is Health.DEGRADED
    scene.look()
    assert (scene.own.health, scene.own.accepted) == (Health.HEALTHY, 0.0)
    assert scene.wishes["m-0"].degraded == ""


def test_less_slowness_may_be_another_and_is_verified():
    scene = accepted(since=8_000.0, quiet_until=10_000.0)
    scene.slow(times=2.0)
    scene.looks(LESS_TICKS)
    assert scene.own.health is Health.DRAINING
    assert scene.own.reason.startswith("verified again: its requests take 2.9x")
    assert pass_canaries(scene) == []
    assert scene.own.health is Health.DEGRADED


def slow_for_most(scene: Scene, some_well: bool) -> None:
    """Its requests take three times as long, but for a few where it is said so."""
    scene.slow(times=3.0)
    if some_well:
        well = samples(number=5, seconds=1.0, now=scene.now)
        scene.samples["m-0"] = (*well, *scene.samples["m-0"][5:])
    scene.look()


def test_if_none_of_its_requests_is_well_any_more_it_is_verified():
    scene = accepted(quiet_until=0.0)
    slow_for_most(scene, some_well=True)
    for _ in range(UNWELL_TICKS - 1):
        slow_for_most(scene, some_well=False)
    assert scene.own.health is Health.DEGRADED
    slow_for_most(scene, some_well=False)
    assert scene.own.health is Health.DRAINING
    assert scene.own.reason.startswith("none of its requests is well any more")
    scene.slow(times=3.0)
    assert pass_canaries(scene) == []
    assert scene.own.health is Health.DEGRADED
    # The next time it takes twice as long to believe that.
    assert (scene.own.unwell_ticks, scene.own.unwell_most) == (0, UNWELL_TICKS)


@pytest.mark.parametrize(
    ("memory", "some_well"),
    [
        ({}, False),
        ({"quiet_until": 20_000.0}, True),
        ({"unwell_most": UNWELL_TICKS}, True),
    ],
)
def test_if_few_ever_were_or_not_for_long_that_says_nothing(
    memory: dict[str, float], some_well: bool
):
    scene = accepted(**{"quiet_until": 0.0} | memory)
    slow_for_most(scene, some_well)
    for _ in range(UNWELL_TICKS + 5):
        slow_for_most(scene, some_well=False)
    assert scene.own.health is Health.DEGRADED


def test_of_many_that_are_slow_for_what_they_are_asked_it_says_nothing():
    scene = accepted(quiet_until=0.0, unwell_most=1, unwell_ticks=UNWELL_TICKS)
    scene.remember("m-1", health=Health.DEGRADED, accepted=LN3, residual=LN3)
    slow_for_most(scene, some_well=False)
    assert scene.own.health is Health.DEGRADED


def test_canaries_are_not_trusted_for_ever():
    scene = accepted(since=10_000.0 - 3590, quiet_until=0.0)
    scene.look()
    assert scene.own.health is Health.DRAINING
    assert scene.own.reason.startswith("verified again")


def test_slow_canaries_that_pass_when_asked_for_change_nothing_but_the_quiet():
    scene = Scene(passes=1)
    scene.give_gpus()
    scene.samples["m-0"] = ()
    scene.canaries["m-0"] = canaries(idle=0.5, at=scene.now + 10)
    scene.looks(3)
    assert scene.own.cause is Cause.SLOW_CANARIES
    assert pass_canaries(scene) == []
    assert (scene.own.health, scene.own.accepted) == (Health.PROBATION, 0.0)
    scene.canaries["m-0"] = canaries(idle=0.5, at=scene.now + 10)
    scene.looks(9)
    assert scene.own.health is Health.HEALTHY


def test_after_a_first_pass_it_is_accepted_for_a_while_only():
    scene = verifying()
    scene.canaries["m-0"] = canaries(at=scene.now)
    scene.look()
    assert scene.own.accepted == pytest.approx(LN3)
    scene.samples["m-0"] = ()
    scene.looks(31)
    assert (scene.own.health, scene.own.accepted) == (Health.HEALTHY, 0.0)


def test_an_engine_as_slow_as_all_by_now_is_not_relaunched_nor_has_it_passed():
    scene = verifying()
    models = {"m": replace(scene.memory.models["m"], common="yes", common_residual=1.0)}
    scene.memory = replace(scene.memory, models=models)
    for name in ("m-1", "m-2", "m-3"):
        scene.slow(name)
    scene.canaries["m-0"] = canaries(idle=0.75, loaded=0.9, at=scene.now)
    decision = scene.look()
    assert relaunches(decision) == []
    assert (scene.own.health, scene.own.passes) == (Health.PROBATION, 0)
