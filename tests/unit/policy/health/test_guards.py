"""How many engines may be drained or relaunched, and how often."""

import math
from dataclasses import replace

import pytest

from modelserver.policy.health.guards import relaunch_pays, relaunches_left
from modelserver.policy.health.memory import (
    Health,
    ModelMemory,
)
from modelserver.values import (
    EngineSpec,
    EngineState,
    Wish,
)
from tests.support.control import (
    Scene,
    alerts,
    canaries,
    relaunches,
    relaunching,
    verifying,
)


def test_of_four_engines_one_at_a_time_is_taken_away_and_of_eight_two():
    for engines, most in ((2, 1), (4, 1), (8, 2), (12, 3)):
        scene = Scene(engines)
        scene.give_gpus()
        for place, name in enumerate(scene.engines):
            slow = place < (engines - 1) // 2
            scene.samples[name] = ()
            scene.canaries[name] = canaries(
                name, idle=0.5 if slow else 0.25, at=scene.now + 10
            )
        scene.looks(4)
        held = sum(bool(wish.hold) for wish in scene.wishes.values())
        assert held == min(most, (engines - 1) // 2)


def test_who_waits_for_others_says_so():
    scene = Scene()
    scene.report("m-1", state=EngineState.BACKOFF)
    scene.slow()
    scene.looks(4)
    assert scene.own.blocked == "as many engines of m as may be down are down"


def test_the_last_engine_goes_only_if_that_pays():
    scene = Scene(1)
    scene.memory = replace(
        scene.memory, models={"m": ModelMemory(counted_at=1.0, load_seconds=1000.0)}
    )
    scene.slow()
    scene.looks(4)
    assert scene.own.blocked == (
        "it is the last engine of m, and a load of 1000 s would not pay"
    )
    scene.memory = replace(scene.memory, models={"m": ModelMemory(load_seconds=60.0)})
    scene.look()
    assert scene.own.health is Health.DRAINING


def test_what_pays_is_weighed_by_the_slowdown():
    assert relaunch_pays(300.0, math.log(3))
    assert not relaunch_pays(901.0, math.log(3))
    assert not relaunch_pays(1.0, 0.0)


def test_an_engine_that_was_relaunched_lately_is_degraded_instead():
    scene = verifying()
    scene.remember("m-0", relaunch_from=99_999.0, relaunches=1)
    scene.canaries["m-0"] = canaries(idle=0.5, at=scene.now)
    decision = scene.look()
    assert relaunches(decision) == []
    assert "not relaunched: it was relaunched 1 times of late" in alerts(decision)[0]
    assert scene.own.health is Health.DEGRADED


def test_a_model_has_three_relaunches_and_one_more_every_twenty_minutes():
    scene = relaunching()
    assert relaunches_left(scene.memory.models["m"], scene.now) == pytest.approx(2.0)
    scene.look(after=600.0)
    assert relaunches_left(scene.memory.models["m"], scene.now) == pytest.approx(2.5)
    scene.look(after=3600.0)
    assert relaunches_left(scene.memory.models["m"], scene.now) == pytest.approx(3.0)


def test_an_engine_of_somebody_else_is_degraded_and_not_relaunched():
    scene = Scene()
    far = EngineSpec("m-0", "m", "a", url="http://far:1")
    scene.wishes["m-0"], scene.pins = Wish(far), (far,)
    scene.slow()
    scene.empty()
    assert [relaunches(each) for each in scene.looks(12)] == [[]] * 12
    assert scene.own.health is Health.DEGRADED
    assert scene.own.blocked == "somebody else runs it"
