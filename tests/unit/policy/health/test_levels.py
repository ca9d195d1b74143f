"""An engine's own level, how far engines wander, and what that excuses."""

import math
from dataclasses import replace

import pytest

from modelserver.policy.health import detectors
from modelserver.policy.health.learning import LEVEL_LOOKS, WANDER, WANDER_MEMORY
from modelserver.policy.health.memory import Health, TypeMemory
from modelserver.policy.health.verdicts import SlowCanary, SpeedResidual
from modelserver.values import Canary, EngineReport, EngineState
from tests.support.control import NOW, Scene, canaries, samples

ENGINE = EngineReport("m-0", "m", "a", EngineState.READY, 1)
WELL = SpeedResidual(0.0, 0.01, 40)


def serve(scene: Scene, **seconds: float) -> None:
    """A look at which every engine has new requests; ``m_0`` took so long."""
    for name in scene.engines:
        took = seconds.get(name.replace("-", "_"), 1.0)
        scene.samples[name] = samples(name, seconds=took, now=scene.now)
    scene.look()


def kind(scene: Scene) -> TypeMemory:
    return scene.memory.types["m@"]


# Levels


def test_a_level_from_a_fast_moment_becomes_what_is_usual():
    scene = Scene(offset=-0.2, offset_looks=1)
    for _ in range(20):
        serve(scene)
    assert scene.own.offset == pytest.approx(-0.2 / 21)
    assert scene.own.offset_looks == 21


def test_a_level_made_from_half_an_hour_is_frozen():
    scene = Scene(offset=-0.2, offset_looks=LEVEL_LOOKS)
    serve(scene)
    assert (scene.own.offset, scene.own.offset_looks) == (-0.2, LEVEL_LOOKS)


def test_looks_without_new_requests_make_no_level_surer():
    scene = Scene(offset=0.0, offset_looks=5)
    serve(scene)
    scene.samples = {name: () for name in scene.engines}
    scene.looks(3)
    assert scene.own.offset_looks == 6


def test_a_level_never_grows_into_a_fault():
    scene = Scene(offset=0.22, offset_looks=3)
    serve(scene, m_0=1.6)
    assert scene.own.offset == 0.22


def test_engines_under_suspicion_learn_no_level():
    scene = Scene(offset=0.0, offset_looks=3, slow_ticks=(True,))
    serve(scene, m_0=1.1)
    assert scene.own.offset_looks == 3


# Wandering


def test_engines_that_keep_their_speed_are_seen_not_to_wander():
    scene = Scene()
    for _ in range(100):
        serve(scene)
    assert kind(scene).wander < WANDER / 3


def test_engines_that_go_up_and_down_are_seen_to_wander():
    scene = Scene()
    for look in range(100):
        times = math.exp(0.15 * (-1) ** look)
        serve(scene, m_0=times, m_1=1 / times, m_2=times, m_3=1 / times)
    assert 0.15 < kind(scene).wander < 0.45


def test_one_slow_engine_of_four_does_not_make_them_wanderers():
    scene = Scene()
    for _ in range(100):
        serve(scene, m_0=1.3)
    assert kind(scene).wander < WANDER / 3


def test_wandering_is_forgotten_within_hours():
    scene = Scene()
    types = {"m@": replace(kind(scene), wander=0.3, wander_looks=WANDER_MEMORY)}
    scene.memory = replace(scene.memory, types=types)
    serve(scene)
    assert kind(scene).wander == pytest.approx(0.3 * (1 - 1 / WANDER_MEMORY))


def slow(times: float, wander: float):
    speeds = {"m-0": SpeedResidual(math.log(times), 0.01, 40), "m-1": WELL}
    return detectors.find_slow(ENGINE, speeds, list(speeds), wander)


def test_what_engines_do_by_themselves_is_no_fault():
    assert slow(1.5, wander=0.03)
    assert slow(1.5, wander=0.1) is None
    verdict = slow(1.6, wander=0.1)
    assert verdict
    assert "engines here waver by 10 %" in verdict.text


def test_more_than_twice_as_slow_is_slow_however_they_wander():
    assert slow(2.25, wander=0.5)
    assert slow(2.15, wander=0.5) is None


def test_wandering_excuses_an_engine_without_peers_too():
    speeds = {"m-0": SpeedResidual(math.log(1.9), 0.01, 40)}
    assert detectors.find_slow(ENGINE, speeds, ["m-0"], 0.05)
    assert detectors.find_slow(ENGINE, speeds, ["m-0"], 0.2) is None


def slow_canary(times: float, wander: float) -> SlowCanary | None:
    made = [Canary("m-0", 1, NOW, 0.25 * times)] * 3
    return detectors.find_slow_canary(ENGINE, made, 0.25, NOW, wander)


def test_a_canary_of_an_engine_that_wanders_may_take_longer():
    assert slow_canary(1.6, wander=0.03)
    assert slow_canary(1.6, wander=0.15) is None
    assert slow_canary(2.3, wander=0.5)


# Canaries


def test_a_baseline_from_a_fast_moment_gives_way_to_that_of_the_type():
    scene = Scene(health=Health.HEALTHY, baseline=0.16)
    scene.canaries["m-0"] = canaries(idle=0.3)
    decisions = scene.looks(3)
    assert not any(each.verdicts for each in decisions)
    assert scene.own.canary_passed_at == NOW


# Common


def test_a_fit_in_the_making_blames_nobody():
    scene = Scene()
    types = {"m@": replace(kind(scene), frozen=False)}
    scene.memory = replace(scene.memory, types=types)
    for name in scene.engines:
        scene.slow(name, times=2.0)
    assert not scene.look().verdicts
    assert not scene.memory.models["m"].common
