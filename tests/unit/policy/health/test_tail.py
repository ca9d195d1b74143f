"""Stutters and slow kinds at one look, and what follows from them."""

from dataclasses import replace

import pytest

from modelserver.policy.health.memory import Health
from modelserver.policy.health.tallies import Tallies, size_of
from modelserver.policy.health.verdicts import (
    SlowBand,
    Stutter,
    StutterTogether,
)
from modelserver.values import Cause, EngineState, Outcome
from tests.support.control import (
    NOW,
    Scene,
    alerts,
    canaries,
    relaunches,
    sample,
    samples,
)

STUTTERS = Tallies(NOW - 1000, ((1, 300.0, 0.0, 0.0, 60.0),), 5.0, 45.0)
WELL = Tallies(NOW - 1000, ((1, 300.0, 0.0, 0.6, 0.0), (15, 40.0, 0.0, 0.1, 0.0)))
SLOW_LONG = replace(
    WELL, cells=((1, 300.0, 0.0, 0.6, 0.0), (15, 40.0, 40.0, 40.2, 0.0))
)


def scene_with(own: Tallies, engines: int = 4, **memory: object) -> Scene:
    """A scene whose first engine has these counts, and whose others are well."""
    scene = Scene(engines)
    for name in scene.engines:
        scene.remember(name, tallies=WELL)
    scene.remember("m-0", tallies=own, **memory)
    scene.memory = replace(scene.memory, judged_at=NOW)
    return scene


def stuttering(**memory: object) -> Scene:
    return scene_with(STUTTERS, **memory)


def verdicts(decision: object) -> list[type]:
    return [type(each) for each in decision.verdicts]  # type: ignore[attr-defined]


def test_a_stutter_is_drained_and_relaunched_without_canaries():
    scene = stuttering()
    scene.looks(2)
    assert scene.own.health is Health.SUSPECT
    scene.look()
    assert scene.wishes["m-0"].hold.startswith("draining: stutters: stands still for 9")
    assert (scene.own.stuttered, scene.own.cause) == (1, Cause.SLOW)
    scene.empty()
    assert relaunches(scene.look()) == ["m-0"]
    assert scene.wishes["m-0"].canary == 0


def test_canaries_that_passed_do_not_hide_a_stutter():
    scene = stuttering(quiet_until=NOW + 1000)
    scene.looks(3)
    assert scene.own.health is Health.DRAINING


def test_a_refused_drain_changes_nothing():
    scene = stuttering()
    scene.report("m-1", state=EngineState.STARTING)
    scene.looks(4)
    assert (scene.own.health, scene.own.stuttered) == (Health.SUSPECT, 0)
    assert scene.own.blocked


def test_one_that_stutters_again_after_its_relaunch_is_degraded():
    scene = stuttering(stuttered=0, relaunches=1)
    for place, name in enumerate(scene.engines):
        scene.report(name, incarnation=2)
        scene.remember(name, incarnation=2)
        scene.samples[name] = samples(name, incarnation=2)
        scene.remember(name, stuttered=int(place == 0))
    scene.looks(2)
    (text,) = alerts(scene.look())
    assert "it did so before its last start; it serves 1.4 times fewer" in text
    assert (scene.own.health, scene.own.incurable) == (Health.DEGRADED, True)
    assert scene.own.tallies.cells


def test_a_new_incarnation_is_counted_anew():
    scene = stuttering()
    scene.report("m-0", incarnation=2)
    scene.samples["m-0"] = ()
    scene.look()
    assert scene.own.tallies == Tallies()


def test_stutters_are_forgiven_after_two_quiet_hours():
    scene = Scene(stuttered=1, since=1000.0)
    scene.look()
    assert scene.own.stuttered == 0


def test_all_that_stutter_together_are_told_of_once():
    scene = stuttering()
    for name in scene.engines:
        scene.remember(name, tallies=STUTTERS)
    first, *later = scene.looks(4)
    (text,) = alerts(first)
    assert text.startswith("the 4 engines of m stutter")
    assert [each.actions for each in later] == [()] * 3
    assert verdicts(later[-1]) == [StutterTogether]
    for name in scene.engines:
        scene.slow(name)
        scene.remember(name, tallies=STUTTERS)
    assert verdicts(scene.look()) == [StutterTogether]
    for name in scene.engines:
        scene.remember(name, tallies=WELL)
        scene.samples[name] = samples(name, now=scene.now)
    scene.look()
    assert scene.memory.models["m"].stutter == ""


def test_where_all_are_slow_their_late_requests_are_no_stutter():
    scene = stuttering()
    models = {"m": replace(scene.memory.models["m"], common="yes")}
    scene.memory = replace(scene.memory, models=models)
    for name in scene.engines:
        scene.slow(name)
        scene.remember(name, tallies=STUTTERS)
    assert StutterTogether not in verdicts(scene.look())


def test_held_engines_do_not_count_among_all():
    scene = stuttering()
    for name in scene.engines:
        scene.remember(name, tallies=STUTTERS)
    scene.remember("m-3", health=Health.VERIFY, tallies=WELL)
    assert StutterTogether in verdicts(scene.look())


def test_an_engine_slow_for_a_kind_takes_the_way_of_slow_ones():
    scene = scene_with(SLOW_LONG)
    assert size_of(3000, 100) == 15
    decision = scene.looks(3)[-1]
    assert verdicts(decision) == [SlowBand]
    assert scene.own.health is Health.DRAINING
    assert scene.own.reason.startswith("slow for prompts of 2,048 tokens and more")
    scene.empty()
    scene.look()
    assert scene.own.health is Health.VERIFY


def test_its_figure_is_that_of_its_last_requests():
    scene = scene_with(SLOW_LONG)
    long = replace(sample(seconds=5.0), prompt_tokens=3000)
    scene.samples["m-0"] = (long, *samples())
    (found,) = scene.look().verdicts
    assert isinstance(found, SlowBand)
    assert "takes 5.00x" in found.text


def test_a_kind_is_not_told_before_the_fit_is_frozen():
    scene = scene_with(SLOW_LONG)
    types = {"m@": replace(scene.memory.types["m@"], frozen=False)}
    scene.memory = replace(scene.memory, types=types)
    assert not scene.look().verdicts


def test_where_other_requests_are_late_too_it_is_a_stutter():
    both = replace(
        STUTTERS, cells=((1, 300.0, 0.0, 0.6, 60.0), (15, 40.0, 40.0, 40.2, 20.0))
    )
    assert verdicts(scene_with(both).look()) == [Stutter]
    only_long = replace(
        both, cells=((1, 300.0, 0.0, 0.6, 0.0), both.cells[1]), pauses=5.0, lost=1.0
    )
    assert verdicts(scene_with(only_long).look()) == [SlowBand]


def test_late_requests_of_one_kind_are_no_stutter_before_the_kind_is_sure():
    rare = ((1, 300.0, 0.0, 0.6, 0.0), (15, 20.0, 3.0, 3.2, 20.0))
    assert verdicts(scene_with(replace(STUTTERS, cells=rare)).look()) == []


def test_without_a_fit_nothing_is_found():
    scene = stuttering()
    types = {"m@": replace(scene.memory.types["m@"], fit=None)}
    scene.memory = replace(scene.memory, types=types)
    assert not scene.look().verdicts


def test_on_a_crowded_host_a_lone_engine_is_not_blamed():
    scene = scene_with(STUTTERS, engines=1)
    assert verdicts(scene.look()) == [Stutter]
    scene.hosts = (replace(scene.hosts[0], busy=0.95),)
    assert not scene.look().verdicts


@pytest.mark.parametrize(("last", "slow"), [(0.25, False), (9.0, True)])
def test_canaries_that_met_a_pause_are_no_slow_canaries(last: float, slow: bool):
    scene = Scene()
    scene.give_gpus()
    scene.canaries["m-0"] = tuple(
        replace(each, seconds=seconds)
        for each, seconds in zip(canaries()[1:], (9.0, 8.0, last), strict=True)
    )
    found = [type(each).__name__ for each in scene.look().verdicts]
    assert ("SlowCanary" in found) is slow


def slow_for_a_kind() -> Scene:
    """A scene whose first engine is slow for long prompts, as its canaries hide."""
    scene = scene_with(SLOW_LONG, passes=1)
    scene.looks(3)
    scene.empty()
    scene.look()
    scene.canaries["m-0"] = canaries(at=scene.now)
    (text,) = alerts(scene.look())
    assert text.startswith("slow for prompts of 2,048 tokens and more")
    assert text.endswith("its canaries pass")
    assert scene.own.health is Health.DEGRADED
    scene.canaries.clear()
    return scene


def test_one_whose_canaries_pass_keeps_its_places_and_is_looked_at_hourly():
    scene = slow_for_a_kind()
    scene.look()
    assert scene.own.health is Health.DEGRADED
    scene.look(after=3600.0)
    assert (scene.own.health, scene.own.slow_kind) == (Health.HEALTHY, "")


def test_another_fault_of_such_a_one_is_found_like_a_first_one():
    scene = slow_for_a_kind()
    for _ in range(3):
        scene.slow()
        scene.look()
    assert scene.own.health is Health.DRAINING
    scene = slow_for_a_kind()
    failed = samples(number=15, outcome=Outcome.ENGINE_FAULT, now=scene.now)
    for _ in range(2):
        scene.samples["m-0"] = failed
        scene.look()
    assert (scene.own.health, scene.own.cause) == (Health.DRAINING, Cause.ERRORS)


def test_an_engine_whose_slowness_is_accepted_stutters_for_that():
    accepted = {"accepted": 1.0, "residual": 1.0, "passes": 2, "quiet_until": NOW + 900}
    scene = stuttering(health=Health.DEGRADED, **accepted)
    assert Stutter not in verdicts(scene.look())
