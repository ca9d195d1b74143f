"""One engine is verified for all that become slow with it."""

import math

import pytest

from modelserver.policy.health.memory import Health
from modelserver.policy.health.shared_verification import let_off
from modelserver.policy.health.verdicts import Slow
from modelserver.values import Cause
from tests.support.control import NOW, Scene, alerts, canaries, known

LN2 = math.log(2)
SLOW = ("m-0", "m-1", "m-2")


def half_slow(times: float = 2.0) -> Scene:
    """Three of eight are slow, and the first of them has been drained for all."""
    scene = Scene(8)
    for name in SLOW:
        scene.slow(name, times)
    scene.looks(3)
    return scene


def verified(scene: Scene) -> list[str]:
    """The drained engine's canaries pass; returns what is told."""
    scene.empty()
    scene.look()
    scene.canaries["m-0"] = canaries(at=scene.now)
    return alerts(scene.look())


def health(scene: Scene) -> list[str]:
    return [scene.memory.engines[name].health.value for name in SLOW]


def test_one_goes_first_and_the_others_say_for_whom_they_wait():
    scene = half_slow()
    scene.look()
    assert health(scene) == ["draining", "suspect", "suspect"]
    assert scene.memory.engines["m-1"].blocked == (
        "m-0, which is slow as well, is verified for it"
    )


def test_two_of_eight_are_both_drained():
    scene = Scene(8)
    for name in SLOW[:2]:
        scene.slow(name)
    scene.looks(3)
    assert health(scene) == ["draining", "draining", "healthy"]


def test_if_its_canaries_pass_all_are_degraded_with_one_alert():
    scene = half_slow()
    (text,) = verified(scene)
    assert text.startswith("its requests take 2.0x, its canaries pass")
    assert alerts(scene.look()) == []
    assert health(scene) == ["degraded"] * 3
    first, other = (scene.memory.engines[name] for name in SLOW[:2])
    assert other.accepted == pytest.approx(math.log(2))
    assert (other.quiet_until, other.passes) == (first.quiet_until, 1)
    assert other.reason.endswith("canaries of m-0, which is as slow, passed")


def test_if_they_are_slow_the_others_are_drained_in_their_turn():
    scene = half_slow()
    scene.empty()
    scene.look()
    scene.canaries["m-0"] = canaries(idle=0.5, at=scene.now)
    scene.looks(2)
    assert health(scene) == ["relaunching", "draining", "suspect"]


def test_what_chance_explains_is_as_slow():
    verified = known(accepted=LN2, quiet_until=NOW + 100, fresh_from=NOW - 10)
    suspect = known(health=Health.SUSPECT, cause=Cause.SLOW)
    engines = {"m-0": verified, "m-1": suspect, "m-2": suspect}
    alike = (list(engines), engines, 2)

    def found(error: float) -> bool:
        slow = Slow("m-1", 1, math.log(3.2), 0.0, error, 40, 5)
        return let_off("m-1", slow, alike, NOW) is not None

    assert (found(0.05), found(0.15)) == (False, True)


@pytest.mark.parametrize(
    ("changed", "is_let_off"),
    [
        ({}, True),
        ({"quiet_until": NOW}, False),  # it is not quiet any longer
        ({"fresh_from": NOW - 700}, False),  # its canaries passed long ago
        ({"accepted": math.log(1.3)}, False),  # it is not as slow
        ({"accepted": 0.0}, False),  # it was never slow
    ],
)
def test_nobody_is_let_off_for_another_slowness_or_time(changed, is_let_off: bool):
    usual = {"accepted": LN2, "quiet_until": NOW + 100, "fresh_from": NOW - 10}
    engines = {
        "m-0": known(**usual | changed),
        "m-1": known(health=Health.SUSPECT, cause=Cause.SLOW),
        "m-2": known(health=Health.SUSPECT, cause=Cause.SLOW),
    }
    slow = Slow("m-1", 1, LN2, 0.0, 0.01, 40, 5)
    assert bool(let_off("m-1", slow, (SLOW, engines, 2), NOW)) is is_let_off
    assert let_off("m-1", slow, (SLOW, engines, 3), NOW) is None


def test_a_degraded_one_that_is_slower_still_waits_and_stays_what_it_is():
    scene = half_slow()
    own = {"health": Health.DEGRADED, "accepted": math.log(2), "residual": math.log(2)}
    until = {"since": 10_000.0, "quiet_until": 20_000.0, "slow_ticks": (True,) * 3}
    scene.remember("m-1", **own | until)
    scene.slow("m-1", times=4.0)
    scene.remember("m-3", health=Health.SUSPECT, cause=Cause.SLOW)
    scene.look()
    engine = scene.memory.engines["m-1"]
    assert engine.health is Health.DEGRADED
    assert engine.blocked.startswith("m-0, which is slow as well")


def test_who_is_let_off_for_one_that_is_not_degraded_is_healthy():
    engines = {
        "m-0": known(accepted=LN2, quiet_until=NOW + 100, fresh_from=NOW - 10),
        "m-1": known(health=Health.SUSPECT, cause=Cause.SLOW),
    }
    slow = Slow("m-1", 1, LN2, 0.0, 0.01, 40, 5)
    other = let_off("m-1", slow, (SLOW[:2], engines, 1), NOW)
    assert other
    assert (other.health, other.slowdown) == (Health.HEALTHY, 1.0)


def slow_for_what_they_are_asked(*times: float) -> Scene:
    """Three of eight are accepted as twice as slow, and take so many times as long."""
    scene = Scene(8)
    for name, each in zip(SLOW, times, strict=True):
        usual = {"health": Health.DEGRADED, "accepted": LN2, "residual": LN2}
        scene.remember(name, **usual, passes=2, since=NOW, slowdown=2.0)
        if each:
            scene.slow(name, each)
        else:
            scene.samples[name] = ()
    return scene


@pytest.mark.parametrize(
    ("times", "is_drained"),
    [
        ((3.4, 2.6, 2.6), False),
        ((5.6, 2.6, 2.6), True),
        ((4.4, 2.0, 2.0), True),
        ((3.4, 0.0, 0.0), True),
    ],
)
def test_each_is_compared_with_the_others_that_are_slow_for_what_they_are_asked(
    times: tuple[float, ...], is_drained: bool
):
    scene = slow_for_what_they_are_asked(*times)
    scene.looks(3)
    assert (health(scene)[0] == "draining") is is_drained
