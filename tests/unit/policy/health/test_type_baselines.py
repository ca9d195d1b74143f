"""What canaries take on engines of a type that were well."""

from dataclasses import replace

import pytest

from modelserver.policy.health.memory import Health, HealthMemory
from modelserver.policy.health.type_baselines import SHARE_OF_NEW, settings_of
from modelserver.values import EngineState
from tests.support.control import Scene, canaries


def kind(scene: Scene):
    (found,) = scene.memory.types.values()
    return found


def first_start(idle: float, known: float = 0.0) -> Scene:
    """A lone engine of which control knows nothing, and its first canaries."""
    scene = Scene(1)
    scene.give_gpus()
    types = scene.memory.types
    if known:
        old = replace(kind(scene), baseline=known, loaded_baseline=1.2 * known)
        types = dict.fromkeys(types, replace(old, settings=settings_of(scene.spec)))
    scene.memory = HealthMemory({}, types)
    scene.samples["m-0"] = ()
    scene.canaries["m-0"] = canaries(idle=idle, loaded=1.2 * idle, at=scene.now + 10)
    return scene


def test_the_first_figures_are_the_median_of_the_engines():
    scene = Scene()
    scene.remember("m-0", baseline=0.9)
    scene.look()
    assert (kind(scene).baseline, kind(scene).loaded_baseline) == (0.25, 0.3)


def test_a_further_engine_moves_them_a_little():
    scene = first_start(idle=0.3, known=0.25)
    scene.look()
    assert kind(scene).baseline == pytest.approx(0.25 + SHARE_OF_NEW * 0.05)
    assert scene.own.baseline == 0.3
    scene.look()
    assert kind(scene).baseline == pytest.approx(0.25 + SHARE_OF_NEW * 0.05)


def test_a_first_start_ever_is_not_judged():
    scene = first_start(idle=0.75)
    scene.looks(6)
    assert scene.own.health is Health.HEALTHY


def test_a_lone_engine_that_is_slow_from_its_first_second_is_found():
    scene = first_start(idle=0.75, known=0.25)
    scene.looks(3)
    assert scene.own.health is Health.DRAINING
    assert scene.own.baseline == 0.0
    assert scene.own.reason.endswith("0.25 s is normal")


def test_what_was_known_is_forgotten_when_the_models_settings_change():
    scene = first_start(idle=0.75, known=0.25)
    scene.spec = replace(scene.spec, engine_version="2", environment={"A": "1"})
    scene.looks(6)
    assert scene.own.health is Health.HEALTHY
    assert kind(scene).baseline == 0.75


def test_settings_that_do_not_matter_for_speed_change_nothing():
    spec = Scene().spec
    assert settings_of(replace(spec, max_engines=9, idle_seconds=1.0)) == settings_of(
        spec
    )


def test_engines_without_canaries_teach_their_type_nothing():
    scene = Scene(1, baseline=0.0, loaded_baseline=0.0)
    scene.report("m-0", state=EngineState.READY)
    scene.look()
    assert kind(scene).baseline == 0.0
