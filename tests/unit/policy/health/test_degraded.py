"""Degraded engines that get another fault, or that may be relaunched by now."""

import math

import pytest

from modelserver.policy.health.leaving import is_incurable
from modelserver.policy.health.memory import Health
from modelserver.policy.health.verdicts import Slow, Stutter
from modelserver.values import Cause, EngineState
from tests.support.control import (
    NOW,
    Scene,
    canaries,
    degraded,
    failing,
    known,
    relaunches,
)

#: A relaunch did not help: it takes twice as long.
INCURABLE = {
    "health": Health.DEGRADED,
    "cause": Cause.SLOW,
    "reason": "slow: yes",
    "residual": math.log(2),
    "slowdown": 2.0,
    "incurable": True,
}


def slow(residual: float, peers: float = 0.0) -> Slow:
    return Slow("m-0", 1, residual, peers, 0.02, 40, 3)


def test_an_engine_that_fails_and_was_not_relaunched_is_once_that_is_allowed():
    later = NOW + 100
    scene = failing(health=Health.DEGRADED, slowdown=1.5, relaunch_from=later)
    scene.looks(9)
    assert scene.own.health is Health.DEGRADED
    scene.looks(2)
    assert (scene.own.health, scene.own.cause) == (Health.DRAINING, Cause.ERRORS)


def test_an_engine_that_no_relaunch_helped_is_relaunched_when_it_fails():
    scene = failing(**INCURABLE)
    scene.looks(2)
    assert (scene.own.health, scene.own.cause) == (Health.DRAINING, Cause.ERRORS)
    scene.empty()
    scene.look()
    scene.canaries["m-0"] = canaries(idle=0.5, loaded=0.6, at=scene.now)
    assert relaunches(scene.look()) == ["m-0"]


def test_an_engine_that_no_relaunch_helped_is_relaunched_when_it_is_slower_still():
    scene = Scene(**INCURABLE)
    scene.slow(times=4.5)
    scene.looks(3)
    assert (scene.own.health, scene.own.incurable) == (Health.DRAINING, False)
    assert scene.own.reason.startswith("slow: takes 4.50x")


@pytest.mark.parametrize("times", [2.0, 3.5])
def test_an_engine_that_no_relaunch_helped_is_left_alone_with_what_is_known(times):
    scene = Scene(**INCURABLE)
    scene.slow(times=times)
    scene.looks(30)
    assert (scene.own.health, scene.own.incurable) == (Health.DEGRADED, True)


def test_what_its_requests_take_in_the_first_minutes_is_known_of_it():
    scene = Scene(**INCURABLE, since=NOW)
    scene.slow(times=4.5)
    scene.looks(90)
    assert (scene.own.health, scene.own.incurable) == (Health.DEGRADED, True)
    scene.slow(times=9.5)
    scene.looks(3)
    assert scene.own.health is Health.DRAINING


def test_what_cannot_be_done_about_another_fault_is_told_and_waits():
    scene = failing(**INCURABLE)
    scene.report("m-1", state=EngineState.STARTING)
    scene.looks(4)
    assert (scene.own.health, scene.own.incurable) == (Health.DEGRADED, True)
    assert scene.own.blocked == "as many engines of m as may be down are down"


def test_what_all_engines_share_is_no_other_fault_of_a_degraded_one():
    own = known(**INCURABLE)
    twice = math.log(4.2)
    assert not is_incurable(own, slow(twice), 0.0)
    assert is_incurable(own, slow(twice, peers=math.log(1.5)), 0.0)
    assert is_incurable(own, slow(twice), math.log(2))


def test_what_it_failed_at_says_nothing_of_how_slow_it_is():
    own = known(**INCURABLE | {"cause": Cause.ERRORS, "residual": 5.0})
    assert is_incurable(own, slow(math.log(3.9)), 0.0)
    assert not is_incurable(own, slow(math.log(4.1)), 0.0)


def test_what_was_late_while_it_was_slow_makes_no_stutter_of_a_degraded_one():
    stutter = Stutter("m-0", 1, 0.3, 0.2, 0.1, 40, 6.0, 9.0, 0.2, 3, 0.0)
    assert is_incurable(known(**INCURABLE), stutter, 0.0)
    assert not is_incurable(known(**INCURABLE | {"incurable": False}), stutter, 0.0)


def test_what_a_relaunch_was_not_tried_against_is_curable():
    assert not is_incurable(known(), slow(math.log(2)), 0.0)
    curable = degraded().own
    assert not is_incurable(curable, slow(math.log(2)), 0.0)


def test_what_was_accepted_before_a_relaunch_is_known_after_one_in_vain():
    scene = degraded(accepted=math.log(3), residual=math.log(3), since=NOW - 600)
    scene.slow(times=6.6)
    scene.looks(3)
    scene.empty()
    scene.look()
    scene.canaries["m-0"] = canaries(idle=0.5, loaded=0.6, at=scene.now)
    assert relaunches(scene.look()) == ["m-0"]
    scene.report("m-0", incarnation=2, since=scene.now)
    scene.canaries["m-0"] = canaries(idle=0.5, at=scene.now, incarnation=2)
    scene.looks(2)
    assert (scene.own.health, scene.own.incurable) == (Health.DEGRADED, True)
    assert math.exp(scene.own.residual) == pytest.approx(6.6)
