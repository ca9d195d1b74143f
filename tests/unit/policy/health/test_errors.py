"""What follows when an engine fails at too many requests: canaries, then a relaunch."""

from dataclasses import replace
from typing import Any

from modelserver.policy.health.memory import Health
from modelserver.values import Cause, Outcome
from tests.support.control import (
    NOW,
    Scene,
    canaries,
    failing,
    relaunches,
    samples,
)


def failing_and_empty(**memory: Any) -> Scene:
    """A scene whose first engine was drained for errors and is empty now."""
    scene = failing(**memory)
    scene.looks(2)
    scene.empty()
    scene.look()
    return scene


def test_an_engine_that_fails_on_two_ticks_is_emptied_and_verified():
    scene = failing()
    scene.look()
    assert scene.own.health is Health.HEALTHY
    scene.look()
    assert (scene.own.health, scene.own.cause) == (Health.DRAINING, Cause.ERRORS)
    scene.empty()
    decision = scene.look()
    assert relaunches(decision) == []
    assert (scene.own.health, scene.wishes["m-0"].canary) == (Health.VERIFY, 1)
    assert scene.own.reason.startswith("errors: 15 of 40")


def test_an_engine_with_errors_whose_canaries_do_not_come_back_is_relaunched():
    scene = failing_and_empty()
    *_, last = scene.looks(6)
    assert relaunches(last) == ["m-0"]


def test_an_engine_with_errors_whose_canaries_pass_comes_back_by_quarters():
    scene = failing_and_empty()
    scene.canaries["m-0"] = canaries(at=scene.now)
    assert relaunches(scene.look()) == []
    assert scene.own.health is Health.PROBATION
    assert scene.wishes["m-0"].limit == 8
    assert (scene.own.errors_passed_at, scene.own.passes) == (scene.now, 0)
    assert scene.own.quiet_until == 0.0


def test_a_second_verdict_of_errors_leads_to_a_relaunch():
    scene = failing_and_empty(errors_passed_at=NOW - 1000)
    assert scene.own.health is Health.RELAUNCHING
    scene.report("m-0", incarnation=2)
    scene.look()
    assert scene.own.errors_passed_at == 0.0


def test_a_second_verdict_long_after_the_first_is_verified_again():
    scene = failing_and_empty(errors_passed_at=NOW - 1900)
    assert scene.own.health is Health.VERIFY


def test_an_engine_that_answers_nothing_needs_no_canaries():
    scene = Scene()
    scene.samples["m-0"] = samples(outcome=Outcome.ENGINE_FAULT)
    scene.looks(2)
    scene.empty()
    assert relaunches(scene.look()) == ["m-0"]


def test_the_last_engine_is_verified_even_if_it_answers_nothing():
    scene = Scene(1)
    scene.samples["m-0"] = samples(outcome=Outcome.ENGINE_FAULT)
    scene.looks(2)
    scene.empty()
    assert relaunches(scene.look()) == []
    assert scene.own.health is Health.VERIFY


def test_the_last_engine_whose_canaries_passed_is_not_drained_for_errors_again():
    scene = Scene(1, errors_passed_at=NOW - 1000)
    scene.samples["m-0"] = samples(outcome=Outcome.ENGINE_FAULT)
    scene.looks(4)
    assert scene.own.health is Health.HEALTHY
    assert scene.own.blocked.startswith("its canaries passed, and without peers")


def test_an_engine_that_fails_always_is_worth_a_relaunch_even_if_it_is_the_last():
    scene = Scene(1)
    scene.samples["m-0"] = samples(outcome=Outcome.ENGINE_FAULT)
    scene.looks(2)
    assert scene.own.health is Health.DRAINING


def test_failures_on_probation_count_as_well():
    scene = failing()
    scene.remember("m-0", health=Health.PROBATION, since=scene.now)
    scene.looks(2)
    assert scene.own.health is Health.DRAINING


def test_many_that_fail_alike_and_whose_canaries_pass_are_left_alone():
    """It may be the kind of request, which half of the hosts cannot bear."""
    scene = failing(errors_passed_at=NOW - 1000)
    scene.samples["m-1"] = tuple(
        replace(each, engine="m-1") for each in scene.samples["m-0"]
    )
    scene.looks(4)
    assert scene.own.health is Health.HEALTHY
    assert scene.own.blocked.startswith("its canaries passed, and as others fail, too")
    assert scene.memory.engines["m-1"].health is Health.DRAINING
