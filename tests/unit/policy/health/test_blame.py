"""Whether slowness is an engine's own, or that of the host on which it runs."""

import math
from dataclasses import replace

import pytest

from modelserver.inventory import Host
from modelserver.policy.health.blame import residual_of
from modelserver.policy.health.memory import Health
from modelserver.policy.health.verdicts import Slow
from modelserver.values import Cause
from tests.support.control import Scene, canaries, second_incarnation


def idle_with_slow_canaries(engines: int = 4) -> Scene:
    scene = Scene(engines)
    scene.give_gpus()
    scene.samples["m-0"] = ()
    scene.empty()
    scene.canaries["m-0"] = canaries(idle=0.5, at=scene.now + 10)
    return scene


def test_slow_canaries_of_an_idle_engine_take_it_away_too():
    scene = idle_with_slow_canaries()
    scene.canaries["m-1"] = canaries("m-1", idle=0.26, at=scene.now + 10)
    scene.looks(3)
    assert (scene.own.health, scene.own.cause) == (Health.DRAINING, Cause.SLOW_CANARIES)


def test_canaries_that_are_slow_on_its_peers_too_are_not_held_against_an_engine():
    scene = idle_with_slow_canaries()
    for name in ("m-1", "m-2"):
        scene.canaries[name] = canaries(name, idle=0.35, at=scene.now + 10)
    scene.looks(4)
    assert scene.own.health is Health.HEALTHY
    assert not any(scene.own.slow_ticks)


@pytest.mark.parametrize(
    ("busy", "health"), [(0.5, Health.DRAINING), (0.95, Health.HEALTHY)]
)
def test_a_lone_engine_is_slow_unless_its_hosts_processors_are_crowded(
    busy: float, health: Health
):
    scene = Scene(1)
    scene.hosts = (Host("a", busy=busy),)
    scene.slow()
    scene.looks(3)
    assert scene.own.health is health


def test_slow_canaries_on_processors_take_no_engine_away():
    scene = Scene(1)
    scene.samples["m-0"] = ()
    scene.empty()
    scene.remember("m-0", baseline=0.05)
    scene.canaries["m-0"] = canaries(idle=0.08, at=scene.now + 10)
    assert not [verdict for look in scene.looks(4) for verdict in look.verdicts]
    assert scene.own.health is Health.HEALTHY


@pytest.mark.parametrize(
    ("idle", "health"), [(0.32, Health.PROBATION), (0.36, Health.RELAUNCHING)]
)
def test_slow_canaries_count_if_those_on_the_empty_engine_are_as_slow(
    idle: float, health: Health
):
    scene = idle_with_slow_canaries()
    scene.looks(4)
    assert scene.own.health is Health.VERIFY
    scene.canaries["m-0"] = canaries(idle=idle, at=scene.now)
    scene.look()
    assert scene.own.health is health


def test_the_last_engine_of_a_model_is_spared_where_a_load_would_not_pay():
    scene = idle_with_slow_canaries(1)
    models = {"m": replace(scene.memory.models["m"], load_seconds=1800.0)}
    scene.memory = replace(scene.memory, models=models)
    scene.looks(4)
    assert scene.own.health is Health.SUSPECT
    assert scene.own.blocked == (
        "it is the last engine of m, and a load of 1800 s would not pay"
    )


def test_canaries_of_milliseconds_prove_nothing():
    scene = idle_with_slow_canaries()
    for name in scene.engines:
        scene.remember(name, baseline=0.003)
    scene.canaries["m-0"] = canaries(idle=0.012, at=scene.now + 10)
    scene.looks(4)
    assert scene.own.health is Health.HEALTHY


def test_an_engine_among_peers_is_slow_on_crowded_processors_too():
    scene = Scene()
    scene.hosts = (Host("a", busy=0.95),)
    scene.slow()
    scene.looks(3)
    assert scene.own.health is Health.DRAINING


def test_an_engine_with_a_gpu_does_not_care_for_crowded_processors():
    scene = idle_with_slow_canaries(1)
    scene.hosts = (replace(scene.hosts[0], busy=0.95),)
    scene.looks(3)
    assert (scene.own.health, scene.own.cause) == (Health.DRAINING, Cause.SLOW_CANARIES)


def busy_check(busy: float) -> Scene:
    """An engine after its relaunch, whose canaries are slow on a host so busy."""
    scene = second_incarnation(idle=0.5)
    scene.hosts = (Host("a", busy=busy),)
    scene.looks(1)
    return scene


def test_after_a_relaunch_slow_canaries_on_shared_processors_are_asked_for_again():
    assert busy_check(0.1).own.health is Health.DEGRADED
    scene = busy_check(0.7)
    for rechecks in (1, 2, 3):
        assert scene.own.health is Health.CHECKING
        assert scene.own.rechecks == rechecks
        assert scene.wishes["m-0"].canary == 2 + rechecks
        scene.canaries["m-0"] = canaries(idle=0.5, at=scene.now, incarnation=2)
        scene.look()
    assert scene.own.health is Health.DEGRADED


def test_if_they_pass_then_it_serves():
    scene = busy_check(0.7)
    scene.canaries["m-0"] = canaries(at=scene.now, incarnation=2)
    scene.look()
    assert (scene.own.health, scene.own.rechecks) == (Health.PROBATION, 0)


def test_where_peers_are_faster_than_the_fit_they_say_how_slow_an_engine_is():
    slow = Slow("m-0", 1, math.log(1.3), math.log(0.65), 0.01, 40, 4)
    assert residual_of(slow) == pytest.approx(math.log(2))
    behind = replace(slow, peers_residual=math.log(1.1))
    assert residual_of(behind) == pytest.approx(math.log(1.3))
