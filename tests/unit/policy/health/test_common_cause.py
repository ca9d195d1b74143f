"""What slows all engines of a model together, so that none of them is to blame."""

import math
from dataclasses import replace

import pytest

from modelserver.policy.health.memory import Health
from modelserver.policy.health.verdicts import SlowTogether
from tests.support.control import Scene, alerts, canaries


def idle(engines: int = 4, slow: int = 4, times: float = 3.0) -> Scene:
    """Nobody asks, and canaries of the first engines are slow."""
    scene = Scene(engines)
    for place, name in enumerate(scene.engines):
        took = 0.25 * (times if place < slow else 1.0)
        scene.samples[name] = ()
        scene.canaries[name] = canaries(name, idle=took, at=scene.now + 10)
    return scene


def early(times: float) -> Scene:
    """All are slow by a fit that is not frozen yet."""
    scene = Scene()
    kind = replace(scene.memory.types["m@"], frozen=False, fitted_count=10_000)
    types = {"m@": kind}
    scene.memory = replace(scene.memory, types=types)
    for name in scene.engines:
        scene.slow(name, times)
    return scene


def test_canaries_tell_while_nobody_asks():
    scene = idle()
    (text,) = alerts(scene.look())
    assert text == (
        "4 engines of m together take 3.00x of what their requests explain (4 by "
        "their canaries): it is the load or the hosts, so none is relaunched"
    )
    assert all(each.actions == () for each in scene.looks(6))
    assert scene.memory.models["m"].common_residual == pytest.approx(math.log(3))


def test_slowness_that_comes_and_goes_is_told_three_times():
    scene, told = Scene(), []
    for times in (3.0, 1.0) * 5:
        for name in scene.engines:
            scene.slow(name, times)
        told += [each for look in scene.looks(3) for each in alerts(look)]
    assert len(told) == 3


def test_it_takes_most_of_the_canaries():
    assert not any(alerts(each) for each in idle(slow=2).looks(2))
    scene = idle(1, 1)
    scene.give_gpus()
    assert scene.look().verdicts[0].text.startswith("slow canary")


def test_older_canaries_and_those_on_shared_processors_tell_nothing():
    scene = idle()
    assert alerts(scene.look(after=101.0)) == []
    scene = idle()
    for name in scene.engines:
        scene.remember(name, shared_at=scene.now + 10)
    assert alerts(scene.look()) == []


def test_engines_that_are_degraded_or_have_no_baseline_are_left_out():
    scene = idle(3, 3)
    scene.remember("m-0", health=Health.DEGRADED, slowdown=3.0)
    scene.remember("m-1", health=Health.RELAUNCHING)
    assert alerts(scene.look()) == []


def test_busy_peers_whose_requests_are_well_outvote_idle_canaries():
    scene = Scene()
    scene.samples["m-0"] = ()
    scene.canaries["m-0"] = canaries(idle=0.75, at=scene.now + 10)
    assert alerts(scene.look()) == []


def test_before_the_fit_is_frozen_it_takes_more_and_for_longer():
    scene = early(times=2.2)
    told = [alerts(each) for each in scene.looks(5)]
    assert [len(each) for each in told] == [0, 0, 0, 1, 0]
    assert not any(alerts(each) for each in early(times=1.9).looks(6))


def test_before_that_is_told_none_is_blamed_for_it():
    scene = early(times=2.2)
    scene.looks(2)
    assert not scene.memory.models["m"].common
    assert scene.memory.models["m"].common_residual == pytest.approx(math.log(2.2))
    scene.slow("m-0", 4.0)
    scene.look()
    assert not any(scene.own.slow_ticks)
    scene.slow("m-0", 5.0)
    scene.look()
    assert scene.own.slow_ticks[-1]


def test_none_is_blamed_for_what_all_have_but_one_that_is_slower_still():
    scene = Scene()
    for name in scene.engines:
        scene.slow(name, 2.0)
    scene.looks(4)
    assert not any(each.slow_ticks[-1] for each in scene.memory.engines.values())
    scene.slow("m-0", 5.0)
    scene.looks(3)
    assert scene.own.health is Health.DRAINING
    assert scene.memory.models["m"].common


def test_canaries_of_peers_are_looked_at_before_one_is_drained_for_its_requests():
    scene = Scene()
    scene.slow(times=2.0)
    for name in ("m-1", "m-2", "m-3"):
        scene.canaries[name] = canaries(name, idle=0.33, at=scene.now + 10)
    scene.looks(4)
    assert scene.own.health is Health.HEALTHY
    scene.looks(9)
    assert scene.own.health is Health.DRAINING


def test_it_stands_until_they_are_well_below():
    scene = idle(times=1.45)
    assert len(alerts(scene.look())) == 1
    for name in scene.engines:
        scene.canaries[name] = canaries(name, idle=0.25 * 1.3, at=scene.now)
    decision = scene.look()
    assert [type(each) for each in decision.verdicts] == [SlowTogether]
    assert scene.memory.models["m"].common
    for name in scene.engines:
        scene.canaries[name] = canaries(name, at=scene.now)
    scene.look()
    assert scene.memory.models["m"].common == ""
    assert scene.memory.models["m"].common_residual == 0.0
