"""The server's clock is set back by an hour, as after a failover to another server."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from modelserver.policy.clock_steps import AHEAD_SECONDS, by_clock_of_now, set_back
from modelserver.policy.health.memory import Health, HealthMemory
from modelserver.policy.rebalance.state import PastMove, RebalanceMemory
from tests.support.control import (
    NOW,
    Scene,
    canaries,
    drained,
    relaunches,
    sample,
    verifying,
)

HOUR = 3600.0


def after_step(scene: Scene) -> Scene:
    """What is reported and measured from then on is by the clock of then."""
    scene.now -= HOUR
    for name, engine in scene.engines.items():
        scene.report(name, since=engine.since - HOUR, alive_at=engine.alive_at - HOUR)
        scene.samples[name] = tuple(
            replace(each, ended_at=each.ended_at - HOUR) for each in scene.samples[name]
        )
    return scene


def looks_until(scene: Scene, holds: Callable[[], bool]) -> int:
    """How many looks it took; a hundred if it never came to that."""
    return next((n for n in range(1, 100) if scene.look() and holds()), 100)


def test_an_engine_that_becomes_slow_is_found_as_soon_as_ever():
    scene = Scene()
    scene.looks(6)
    after_step(scene).slow()
    assert looks_until(scene, lambda: scene.own.health is Health.DRAINING) <= 4


def test_canaries_that_pass_are_heard():
    scene = after_step(verifying())
    scene.canaries["m-0"] = canaries(at=scene.now + 1)
    scene.look()
    assert scene.own.health is Health.PROBATION


def test_one_that_does_not_empty_is_relaunched_in_its_time():
    scene = after_step(drained())
    assert looks_until(scene, lambda: scene.own.health is Health.RELAUNCHING) <= 9


def test_healthy_engines_are_left_alone():
    scene = Scene()
    scene.looks(6)
    after_step(scene)
    for decision in scene.looks(20):
        assert not relaunches(decision)
    assert scene.own.health is Health.HEALTHY


def test_what_was_measured_before_does_not_count_as_just_now():
    scene = Scene(2)
    late = (sample(age=-HOUR), sample(age=-AHEAD_SECONDS + 1), sample(age=1))
    scene.samples["m-0"] = late
    scene.canaries["m-0"] = canaries(at=NOW + HOUR)
    found = by_clock_of_now(scene.snapshot(), NOW)
    assert found.samples["m-0"] == late[1:]
    assert found.samples["m-1"] is scene.samples["m-1"]
    assert found.canaries["m-0"] == ()


def test_moves_of_gpus_are_remembered_as_long_as_ever():
    moves = RebalanceMemory(ticked_at=NOW + HOUR, past=(PastMove(NOW, "a", "b"),))
    found = by_clock_of_now(replace(Scene().snapshot(), moves=moves), NOW).moves
    assert found
    assert found.past[0].at == NOW - HOUR - AHEAD_SECONDS


@pytest.mark.parametrize("memory", [None, HealthMemory()])
def test_without_a_memory_there_is_nothing_to_set_back(memory: HealthMemory | None):
    snapshot = replace(Scene().snapshot(), memory=memory)
    assert by_clock_of_now(snapshot, NOW) == snapshot


def test_never_stays_never():
    memory = Scene().memory.engines["m-0"]
    found = set_back({"m-0": memory}, 10.0)["m-0"]
    assert (found.since, found.quiet_until) == (memory.since - 10, 0.0)
    assert found.offset == memory.offset
