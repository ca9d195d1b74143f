"""What follows from a verdict, from suspicion to a relaunch and back."""

import math
from dataclasses import replace

import pytest

from modelserver.measured import EngineLoad, Metrics
from modelserver.policy.actions import Relaunch, Treat
from modelserver.policy.health.memory import (
    Health,
    ModelMemory,
)
from modelserver.values import EngineState
from tests.support.control import (
    Scene,
    alerts,
    canaries,
    degraded,
    drained,
    hanging,
    relaunches,
    relaunching,
    second_incarnation,
    verifying,
)

# Suspicion


def test_healthy_engines_are_left_alone():
    scene = Scene()
    assert [each.actions for each in scene.looks(6)] == [()] * 6
    assert scene.own.health is Health.HEALTHY


def test_the_first_slow_tick_makes_suspect_and_the_third_takes_away():
    scene = Scene()
    scene.slow()
    assert scene.look().actions == ()
    assert scene.own.health is Health.SUSPECT
    assert scene.look().actions == ()
    (treat,) = scene.look().actions
    assert isinstance(treat, Treat)
    assert treat.hold.startswith("draining: slow: takes 3.00x")
    assert scene.own.health is Health.DRAINING


def test_three_slow_ticks_of_four_are_enough():
    scene = Scene(slow_ticks=(True, False, True), health=Health.SUSPECT)
    scene.slow()
    scene.look()
    assert scene.own.health is Health.DRAINING


def test_three_clean_ticks_lift_the_suspicion():
    scene = Scene(slow_ticks=(True, True), health=Health.SUSPECT)
    scene.looks(2)
    assert scene.own.health is Health.SUSPECT
    scene.look()
    assert scene.own.health is Health.HEALTHY


def test_an_engine_that_passed_lately_is_not_suspected():
    scene = Scene(quiet_until=20_000.0, accepted=math.log(3))
    scene.slow()
    scene.looks(6)
    assert scene.own.health is Health.HEALTHY
    assert scene.own.accepted == pytest.approx(math.log(3))


def test_relaunches_and_passes_are_forgiven_after_two_quiet_hours():
    scene = Scene(passes=2, relaunches=3, since=1000.0)
    scene.look()
    assert (scene.own.passes, scene.own.relaunches) == (0, 0)


def test_slowness_waits_for_the_end_of_probation():
    scene = Scene(health=Health.PROBATION, since=10_000.0)
    scene.slow()
    scene.looks(2)
    assert scene.own.health is Health.PROBATION
    scene.look()
    assert scene.own.health is Health.DRAINING


# Draining and verifying


def test_a_draining_engine_may_finish_for_a_minute_then_its_requests_go_elsewhere():
    scene = drained()
    scene.looks(5)
    assert scene.wishes["m-0"].abort == 0
    scene.look()
    assert scene.wishes["m-0"].abort == 1


def test_an_engine_that_does_not_let_go_is_relaunched():
    scene = drained()
    *_, last = scene.looks(9)
    assert relaunches(last) == ["m-0"]


def test_an_empty_engine_is_asked_for_canaries():
    scene = verifying()
    assert scene.wishes["m-0"].canary == 1
    assert scene.wishes["m-0"].hold.startswith("verify: slow")


def test_an_engine_whose_canaries_pass_comes_back_by_quarters():
    scene = verifying()
    scene.canaries["m-0"] = canaries(at=scene.now)
    scene.look()
    assert scene.own.health is Health.PROBATION
    assert scene.wishes["m-0"].hold == ""
    assert scene.wishes["m-0"].limit == 8
    scene.look(after=15.0)
    assert scene.wishes["m-0"].limit == 16
    scene.look(after=15.0)
    assert scene.wishes["m-0"].limit == 0
    assert scene.own.health is Health.HEALTHY
    assert scene.own.quiet_until == pytest.approx(scene.now - 30 + 300)


def test_an_engine_that_passes_again_is_degraded_and_people_are_told():
    scene = verifying()
    scene.remember("m-0", passes=1)
    scene.canaries["m-0"] = canaries(at=scene.now)
    (text,) = alerts(scene.look())
    assert text.startswith("its requests take 3.0x, its canaries pass: ")
    assert scene.own.health is Health.DEGRADED
    assert scene.own.accepted == pytest.approx(math.log(3))
    assert scene.own.offset == 0.0
    assert scene.wishes["m-0"].limit == 0
    assert scene.own.quiet_until == pytest.approx(scene.now + 600)


def test_a_slow_canary_or_a_slow_loaded_one_leads_to_a_relaunch():
    for idle, loaded in ((0.32, 0.3), (0.25, 0.38)):
        scene = verifying()
        scene.canaries["m-0"] = canaries(idle=idle, loaded=loaded, at=scene.now)
        (relaunch,) = [e for e in scene.look().actions if isinstance(e, Relaunch)]
        assert relaunch.incarnation == 1
        assert relaunch.reason.startswith("slow: ")


def test_canaries_from_before_do_not_count():
    scene = verifying()
    scene.canaries["m-0"] = canaries(at=scene.now - 1)
    scene.look()
    assert scene.own.health is Health.VERIFY


def test_an_engine_that_answers_no_canary_is_relaunched():
    scene = verifying()
    *_, last = scene.looks(6)
    assert relaunches(last) == ["m-0"]


def test_an_engine_without_any_baseline_is_believed():
    scene = verifying()
    for name in scene.engines:
        scene.remember(name, baseline=0.0, loaded_baseline=0.0)
    kind = replace(scene.memory.types["m@"], baseline=0.0, loaded_baseline=0.0)
    scene.memory = replace(scene.memory, types={"m@": kind})
    scene.canaries["m-0"] = canaries(idle=9.0, at=scene.now)
    scene.look()
    assert scene.own.health is Health.PROBATION


def test_a_draining_engine_that_hangs_is_relaunched_at_once():
    scene = drained()
    scene.loads["m-0"] = EngineLoad(2, 80.0, 80.0)
    scene.metrics["m-0"] = Metrics(tokens_at=scene.now - 60)
    assert relaunches(scene.look(after=2.0)) == ["m-0"]
    assert scene.own.reason.startswith("hung: ")


# Relaunch, probation, degraded


def test_after_a_relaunch_canaries_come_first_and_nothing_else():
    scene = second_incarnation()
    assert scene.wishes["m-0"].hold.startswith("checking")
    assert scene.wishes["m-0"].canary == 2
    scene.look()
    assert scene.own.health is Health.PROBATION
    assert scene.wishes["m-0"].limit == 8
    assert scene.memory.models["m"].load_seconds == pytest.approx(15.0)


def test_a_relaunch_is_asked_for_once():
    scene = relaunching()
    assert [each.actions for each in scene.looks(3)] == [()] * 3


def test_a_lost_wish_is_made_again_without_another_token():
    scene = relaunching()
    tokens = scene.memory.models["m"].tokens
    scene.wishes["m-0"] = replace(scene.wishes["m-0"], relaunch=0)
    assert relaunches(scene.look()) == ["m-0"]
    assert scene.memory.models["m"].tokens >= tokens


def test_an_engine_that_is_still_slow_serves_as_degraded():
    scene = second_incarnation(idle=0.5)
    (text,) = alerts(scene.look())
    assert "a relaunch did not help; it serves 2.0 times fewer requests" in text
    assert scene.own.health is Health.DEGRADED
    assert scene.wishes["m-0"].limit == 16
    assert scene.wishes["m-0"].degraded.startswith("slow: takes 3.00x")
    scene.slow()
    scene.samples["m-0"] = tuple(
        replace(each, incarnation=2) for each in scene.samples["m-0"]
    )
    assert all(not relaunches(each) for each in scene.looks(300))


def test_without_canaries_a_new_incarnation_gets_its_chance():
    scene = second_incarnation()
    scene.canaries["m-0"] = ()
    scene.looks(6)
    assert scene.own.health is Health.PROBATION


def test_a_degraded_engine_that_seems_well_is_asked_for_canaries():
    scene = degraded(incurable=True)
    scene.looks(3)
    assert scene.own.health is Health.CHECKING
    scene.empty()
    scene.canaries["m-0"] = canaries(at=scene.now)
    scene.look()
    assert (scene.own.health, scene.own.incurable) == (Health.PROBATION, False)


def test_if_the_canaries_are_still_slow_nobody_is_told_again():
    scene = degraded(incurable=True)
    scene.looks(3)
    scene.empty()
    scene.canaries["m-0"] = canaries(idle=0.5, at=scene.now)
    decision = scene.look()
    assert scene.own.health is Health.DEGRADED
    assert alerts(decision) == []


def test_the_last_engine_is_believed_without_canaries():
    scene = degraded(engines=1)
    scene.looks(3)
    assert scene.own.health is Health.PROBATION


def test_a_check_waits_while_others_are_down():
    scene = degraded()
    scene.report("m-1", state=EngineState.STARTING)
    scene.looks(4)
    assert scene.own.health is Health.DEGRADED


def test_a_degraded_engine_is_relaunched_once_that_is_allowed():
    scene = degraded()
    scene.slow()
    scene.looks(3)
    assert scene.own.health is Health.DRAINING


def test_a_degraded_engine_is_left_alone_between_ticks():
    scene = degraded()
    scene.look()
    before = scene.own
    assert scene.look(after=2.0).actions == ()
    assert scene.own == before


def test_a_degraded_engine_that_may_not_be_relaunched_goes_on():
    scene = degraded(relaunch_from=99_999.0)
    scene.slow()
    scene.looks(6)
    assert scene.own.health is Health.DEGRADED


def test_a_degraded_engine_that_somebody_restarted_is_checked():
    scene = degraded()
    scene.report("m-0", incarnation=2)
    scene.look()
    assert scene.own.health is Health.CHECKING


def test_a_degraded_engine_that_is_back_is_not_checked_while_others_are_down():
    scene = degraded()
    scene.report("m-0", incarnation=2)
    scene.report("m-1", state=EngineState.STARTING)
    scene.look()
    assert scene.own.health is Health.DEGRADED
    assert scene.own.incarnation == 2


def test_an_engine_that_died_and_is_back_starts_afresh():
    scene = Scene(slow_ticks=(True, True), health=Health.SUSPECT)
    scene.report("m-0", incarnation=2)
    scene.look(after=2.0)
    assert (scene.own.health, scene.own.slow_ticks) == (Health.HEALTHY, ())


def test_an_engine_that_died_while_held_is_checked_when_it_is_back():
    scene = drained()
    scene.report("m-0", incarnation=2, since=scene.now)
    scene.look()
    assert scene.own.health is Health.CHECKING


# Hang


def test_a_hanging_engine_is_relaunched_at_once_and_its_requests_go_elsewhere():
    scene = hanging()
    assert relaunches(scene.look(after=2.0)) == ["m-0"]
    assert scene.wishes["m-0"].abort == 1
    assert scene.own.health is Health.RELAUNCHING


def test_the_last_engine_may_be_relaunched_if_it_hangs():
    assert relaunches(hanging(1).look(after=2.0)) == ["m-0"]


def test_the_last_engine_is_relaunched_however_lately_it_hung():
    lately = {"relaunch_from": 99_999.0, "relaunches": 1}
    assert relaunches(hanging(1, **lately).look(after=2.0)) == ["m-0"]
    assert relaunches(hanging(2, **lately).look(after=2.0)) == []


def test_a_degraded_engine_that_hangs_is_relaunched():
    scene = hanging(health=Health.DEGRADED, slowdown=2.0)
    assert relaunches(scene.look(after=2.0)) == ["m-0"]


def test_a_hanging_engine_waits_empty_until_it_may_be_relaunched():
    scene = hanging()
    scene.memory = replace(
        scene.memory, models={"m": ModelMemory(0.0, counted_at=scene.now)}
    )
    scene.look(after=2.0)
    assert scene.own.health is Health.DRAINING
    assert scene.own.blocked == "m has been relaunched too often of late"
    assert scene.wishes["m-0"].abort == 1
    assert relaunches(scene.look(after=1200.0)) == ["m-0"]
