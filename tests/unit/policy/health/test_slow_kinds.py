"""Engines that are slow for long prompts or answers only, as canaries do not show."""

from dataclasses import replace

from modelserver.policy.health.accepting import TRUSTED_SECONDS
from modelserver.policy.health.memory import Health
from modelserver.policy.health.tallies import Tallies
from modelserver.policy.health.verdicts import Slow, SlowBand, Stutter
from modelserver.values import Cause, Outcome
from tests.support.control import NOW, Scene, alerts, canaries, samples

WELL = Tallies(NOW - 1000, ((1, 300.0, 0.0, 0.6, 0.0), (15, 40.0, 0.0, 0.1, 0.0)))
SLOW_LONG = replace(
    WELL, cells=((1, 300.0, 0.0, 0.6, 0.0), (15, 40.0, 40.0, 40.2, 0.0))
)
STUTTERS = Tallies(NOW - 1000, ((1, 300.0, 0.0, 0.0, 60.0),), 5.0, 45.0)


def scene_with(own: Tallies, **memory: object) -> Scene:
    """A scene whose first engine has these counts, and whose others are well."""
    scene = Scene(4)
    for name in scene.engines:
        scene.remember(name, tallies=WELL)
    scene.remember("m-0", tallies=own, **memory)
    scene.memory = replace(scene.memory, judged_at=NOW)
    return scene


def known(**memory: object) -> Scene:
    """A scene whose first engine is known to be slow for long prompts."""
    usual = {"health": Health.DEGRADED, "slow_kind": "prompts", "since": NOW}
    return scene_with(SLOW_LONG, **usual | memory)


def test_one_whose_canaries_passed_twice_is_degraded_and_keeps_its_limit():
    scene = scene_with(SLOW_LONG, passes=1)
    scene.looks(3)
    assert (scene.own.health, scene.own.slow_kind) == (Health.DRAINING, "prompts")
    scene.empty()
    scene.look()
    scene.canaries["m-0"] = canaries(at=scene.now)
    (text,) = alerts(scene.look())
    assert text.startswith("slow for prompts of 2,048 tokens and more")
    assert text.endswith("its canaries pass")
    assert (scene.own.health, scene.own.accepted) == (Health.DEGRADED, 0.0)
    assert scene.wishes["m-0"].limit == 0


def test_once_passed_the_same_kind_is_let_be_for_a_while():
    scene = scene_with(SLOW_LONG)
    scene.looks(3)
    scene.empty()
    scene.look()
    scene.canaries["m-0"] = canaries(at=scene.now)
    scene.look()
    assert scene.own.health is Health.PROBATION
    scene.remember("m-0", tallies=SLOW_LONG)
    assert not scene.look().verdicts
    scene.remember("m-0", quiet_until=scene.now)
    scene.look()
    assert scene.own.slow_kind == ""


def test_a_known_kind_is_not_told_again_and_another_fault_is_found():
    scene = known()
    assert not scene.look().verdicts
    scene.slow(times=3.0)
    decision = scene.looks(3)[-1]
    assert [type(each) for each in decision.verdicts] == [Slow]
    assert (scene.own.health, scene.own.slow_kind) == (Health.DRAINING, "")


def test_errors_are_found_as_well():
    scene = known()
    scene.samples["m-0"] = samples(outcome=Outcome.ENGINE_FAULT)
    scene.looks(2)
    assert (scene.own.health, scene.own.cause) == (Health.DRAINING, Cause.ERRORS)


def test_after_an_hour_it_is_found_anew():
    scene = known()
    scene.look(after=TRUSTED_SECONDS + 1)
    assert (scene.own.health, scene.own.slow_kind) == (Health.HEALTHY, "")
    for name in scene.engines:
        scene.remember(name, tallies=SLOW_LONG if name == "m-0" else WELL)
    (found,) = scene.look().verdicts
    assert isinstance(found, SlowBand)


def test_an_engine_that_is_slow_as_a_whole_does_not_stutter():
    scene = scene_with(STUTTERS)
    scene.slow(times=3.0)
    assert [type(each) for each in scene.look().verdicts] == [Slow]


def test_nor_does_one_that_is_known_to_be_slow():
    scene = scene_with(STUTTERS, accepted=1.0, quiet_until=NOW + 1000)
    assert not scene.look().verdicts


def test_where_nothing_was_answered_of_late_pauses_are_enough():
    scene = scene_with(STUTTERS)
    scene.samples["m-0"] = ()
    (found,) = scene.look().verdicts
    assert isinstance(found, Stutter)
