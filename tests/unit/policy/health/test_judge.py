"""One look at all engines: what counts at it, and what does not."""

from dataclasses import replace

import pytest

from modelserver.measured import EngineLoad, Metrics
from modelserver.policy.decide import consider
from modelserver.policy.health.memory import Health
from modelserver.policy.health.telling import CALM_SECONDS
from modelserver.values import Cause, Outcome
from tests.support.control import (
    NOW,
    RULES,
    Scene,
    alerts,
    failing,
    known,
    relaunches,
    samples,
)


def test_a_look_between_ticks_leaves_the_very_same_memory():
    scene = Scene()
    scene.look()
    before = scene.memory
    scene.look(after=2.0)
    assert scene.memory == before


def test_looks_between_ticks_do_not_count():
    scene = Scene()
    scene.slow()
    for _ in range(8):
        scene.look(after=2.0)
    assert sum(scene.own.slow_ticks) == 2


def test_all_slow_together_are_left_alone_and_told_of_once():
    scene = Scene()
    for name in scene.engines:
        scene.slow(name)
    first, *later = scene.looks(6)
    assert [text.startswith("4 engines of m") for text in alerts(first)] == [True]
    assert [each.actions for each in later] == [()] * 5
    assert scene.memory.models["m"].common


def test_slowness_of_all_is_over_when_it_is_well_below_not_just_below():
    scene = Scene()
    for times, stands in ((3.0, True), (1.3, True), (3.0, True), (1.0, False)):
        for name in scene.engines:
            scene.slow(name, times)
        told = alerts(scene.look())
        assert bool(scene.memory.models["m"].common) is stands
        assert len(told) == (scene.now == NOW + 10)


def test_alone_it_is_not_slow_by_a_fit_that_is_not_frozen():
    """That one rests on its first requests, and no peer says what is usual."""
    scene = Scene(1)
    kind = replace(scene.memory.types["m@"], frozen=False)
    scene.memory = replace(scene.memory, types={"m@": kind})
    scene.slow()
    scene.looks(4)
    assert scene.own.health is Health.HEALTHY
    scene.memory = replace(scene.memory, types={"m@": replace(kind, frozen=True)})
    scene.looks(1)
    assert scene.own.health is Health.SUSPECT


def test_an_engine_without_a_sign_of_life_is_a_hang():
    scene = Scene()
    scene.now += 100.0
    scene.report("m-0", alive_at=scene.now - 61)
    decision = consider(scene.snapshot(), RULES, scene.now)
    assert relaunches(decision) == ["m-0"]
    assert decision.memory.engines["m-0"].reason == (
        "hung: no token for 61 s with 2 in flight, oldest 1 s"
    )


def test_a_dead_launchers_engines_are_not_judged():
    scene = Scene()
    scene.slow()
    scene.hosts, scene.pins = (), tuple(w.spec for w in scene.wishes.values())
    assert [each.actions for each in scene.looks(4)] == [()] * 4


def test_an_engine_of_which_nobody_has_reported_is_waited_for():
    scene = Scene()
    del scene.engines["m-0"]
    scene.look()
    assert scene.own == known()


def test_limits_move_every_five_seconds_and_are_wished():
    scene = Scene()
    scene.metrics["m-0"] = Metrics(waiting=20)
    scene.look(after=2.0)
    assert scene.wishes["m-0"].limit == 28
    scene.look(after=2.0)
    assert scene.wishes["m-0"].limit == 28
    scene.look(after=3.0)
    assert scene.wishes["m-0"].limit == 25


def test_slow_tokens_lower_the_limit_of_a_model_that_asks_for_quick_ones_only():
    scene = Scene()
    scene.metrics["m-0"] = Metrics(itl_seconds=0.2)
    scene.looks(3)
    assert scene.own.limit == 0.0
    scene.spec = replace(scene.spec, itl_seconds=0.1)
    scene.look()
    assert scene.own.limit == pytest.approx(28.8)


def test_an_engines_own_capacity_is_the_most_that_it_may_have():
    scene = Scene(limit=19.9)
    scene.report("m-0", capacity=20)
    scene.metrics["m-0"] = Metrics()
    scene.loads["m-0"] = EngineLoad(19, 1.0, 1.0)
    scene.look()
    assert scene.own.limit == 0.0


def test_a_limit_that_grew_full_is_the_models():
    scene = Scene(limit=31.9)
    scene.metrics["m-0"] = Metrics(itl_seconds=0.02)
    scene.loads["m-0"] = EngineLoad(31, 1.0, 1.0)
    scene.look()
    assert scene.own.limit == 0.0


def test_failures_beyond_its_peers_lower_an_engines_limit():
    scene = failing()
    scene.metrics["m-0"] = Metrics(itl_seconds=0.02)
    scene.look()
    assert scene.own.limit == pytest.approx(22.4)


def test_a_limit_comes_back_when_failures_end():
    scene = failing(1)
    scene.metrics["m-0"] = Metrics(itl_seconds=0.02)
    scene.remember("m-0", limit=8.0)
    scene.samples["m-0"] = samples(now=scene.now)
    scene.loads["m-0"] = EngineLoad(31, 1.0, 1.0)
    scene.looks(12)
    assert scene.own.limit == 0.0


@pytest.mark.parametrize("outcome", [Outcome.ENGINE_FAULT, Outcome.REQUEST_FAULT])
def test_failures_of_all_alike_lower_no_limit_and_are_told_of_once(outcome):
    scene = Scene()
    for name in scene.engines:
        scene.metrics[name] = Metrics(itl_seconds=0.02)
        scene.samples[name] = (
            *samples(name, 15, outcome=outcome),
            *samples(name, 25),
        )
    told = [alerts(each) for each in scene.looks(5)]
    assert [len(each) for each in told] == [0, 0, 1, 0, 0]
    assert told[2][0].startswith("38 % of the requests of m ")
    assert {own.limit for own in scene.memory.engines.values()} == {0.0}
    assert scene.memory.models["m"].failing == told[2][0]


def test_people_are_told_when_requests_fail_no_longer():
    scene = Scene()
    models = {"m": replace(scene.memory.models["m"], failing="15 % of ...")}
    scene.memory = replace(scene.memory, models=models)
    told = [alerts(each) for each in scene.looks(4)]
    over = "the requests of m do not fail any longer, or there are none"
    assert told == [[], [], [over], []]
    assert not scene.memory.models["m"].failing


def test_an_engine_that_is_known_to_fail_is_no_failing_of_all():
    scene = failing(2)
    scene.remember(
        "m-0",
        health=Health.DEGRADED,
        cause=Cause.ERRORS,
        errors_passed_at=scene.now - 60,
    )
    assert not any(alerts(each) for each in scene.looks(5))


def test_requests_that_fail_off_and_on_are_told_of_three_times():
    scene, told = Scene(2), []
    for bad in (20, 0) * 6:
        for name in scene.engines:
            refused = samples(name, bad, outcome=Outcome.REQUEST_FAULT, now=scene.now)
            scene.samples[name] = (*refused, *samples(name, 20, now=scene.now))
        told += [each for look in scene.looks(6) for each in alerts(look)]
    assert [each[:4] for each in told] == ["50 %", "the ", "50 %", "the ", "50 %"]
    over = [bool(alerts(each)) for each in scene.looks(100)]
    assert over.count(True) == 1
    assert over.index(True) * 10 == pytest.approx(CALM_SECONDS, abs=80)


def test_a_fit_in_the_making_blames_nobody():
    scene = Scene()
    types = {"m@": replace(scene.memory.types["m@"], frozen=False)}
    scene.memory = replace(scene.memory, types=types)
    for name in scene.engines:
        scene.slow(name, times=2.0)
    assert not scene.look().verdicts
    assert not scene.memory.models["m"].common
