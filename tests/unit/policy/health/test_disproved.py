"""What canaries disproved twice is not believed again so soon."""

import math

import pytest

from modelserver.policy.health.disproved import is_disproved
from modelserver.policy.health.memory import Health
from tests.support.control import NOW, Scene, canaries, known


def two_were_well(**of_second: object) -> Scene:
    """Canaries of two of eight engines passed as these seemed 2 times slow."""
    scene = Scene(8)
    scene.remember("m-6", disproved=(math.log(2.1),), passes=1)
    scene.remember("m-7", **{"disproved": (math.log(2.0),), "passes": 1} | of_second)
    return scene


def drained(scene: Scene, times: float) -> bool:
    """Whether the first engine is drained, as its requests take so much longer."""
    scene.slow(times=times)
    scene.looks(3)
    return scene.own.health is Health.DRAINING


def verified(times: float, **memory: object) -> Scene:
    """The first engine is drained for its slowness, and its canaries pass."""
    scene = Scene(8, **memory)
    assert drained(scene, times)
    scene.empty()
    scene.look()
    scene.canaries["m-0"] = canaries(at=scene.now)
    scene.look()
    return scene


@pytest.mark.parametrize("times", [1.7, 1.9])
def test_what_two_engines_were_well_at_is_not_believed_of_a_third(times: float):
    scene = two_were_well()
    assert not drained(scene, times)
    assert scene.own.health is Health.HEALTHY


@pytest.mark.parametrize("times", [2.05, 3.0])
def test_a_third_that_is_slower_than_both_is_drained(times: float):
    assert drained(two_were_well(), times)


def test_more_than_twice_is_believed_whatever_was_seen():
    scene = two_were_well(disproved=(math.log(5),))
    scene.remember("m-6", disproved=(math.log(5),))
    assert drained(scene, 2.3)


@pytest.mark.parametrize(
    "of_second",
    [
        {"disproved": ()},
        {"accepted": math.log(2), "health": Health.DEGRADED, "since": NOW},
    ],
)
def test_one_engine_says_nothing_nor_one_that_is_slow_for_what_it_is_asked(of_second):
    assert drained(two_were_well(**of_second), 1.7)


def test_a_lone_engine_has_nobody_to_say_so():
    assert not is_disproved(math.log(2), known(), ["m-0"], {"m-0": known()})


def test_what_canaries_disproved_is_remembered():
    assert verified(1.6).own.disproved == pytest.approx((math.log(1.6),))


#: Twice as slow as others for what it is asked.
ACCEPTED = {
    "health": Health.DEGRADED,
    "accepted": math.log(2),
    "residual": math.log(2),
    "slowdown": 2.0,
    "passes": 2,
    "since": 10_000.0,
    "quiet_until": 99_999.0,
}


def test_beyond_what_is_accepted_it_takes_more_than_was_disproved_twice():
    scene = verified(3.6, **ACCEPTED, disproved=(math.log(1.9),))
    assert scene.own.health is Health.DEGRADED
    assert scene.own.disproved == pytest.approx((math.log(1.9), math.log(1.8)))
    assert not drained(scene, 1.6 * 3.6)
    assert drained(scene, 2.0 * 3.6)


def test_once_is_not_enough():
    assert drained(verified(3.6, **ACCEPTED), 1.6 * 3.6)


def test_when_it_is_first_believed_what_is_beyond_that_is_new():
    scene = verified(2.0, passes=1)
    assert (scene.own.health, scene.own.disproved) == (Health.DEGRADED, ())
    assert drained(scene, 3.0)


def test_canaries_that_fail_prove_it():
    scene = Scene(8, **ACCEPTED, disproved=(0.5, 0.4), relaunch_from=99_999.0)
    assert drained(scene, 4.5)
    scene.empty()
    scene.look()
    scene.canaries["m-0"] = canaries(idle=0.5, at=scene.now)
    scene.look()
    assert (scene.own.health, scene.own.disproved) == (Health.DEGRADED, ())


def test_it_is_forgotten_with_the_slowness_and_with_time():
    scene = Scene(8, **ACCEPTED, disproved=(0.5, 0.4), clear_ticks=99)
    scene.slow(times=1.0)
    scene.look()
    assert (scene.own.health, scene.own.disproved) == (Health.HEALTHY, ())
    scene.remember("m-0", passes=1, disproved=(0.5, 0.4), since=scene.now - 8_000)
    scene.look()
    assert scene.own.disproved == ()
