"""The life of an engine under control: what follows from verdicts, and its guards."""

import math
from dataclasses import replace

import pytest

from modelserver.inventory import Gpu, Host
from modelserver.policy.actions import Alert, Relaunch, Treat
from modelserver.policy.decide import consider
from modelserver.policy.health.guards import relaunch_pays, relaunches_left
from modelserver.policy.health.memory import (
    Health,
    HealthMemory,
    ModelMemory,
    TypeMemory,
    from_json,
    to_json,
)
from modelserver.values import (
    EngineLoad,
    EngineSpec,
    EngineState,
    Metrics,
    Outcome,
    Wish,
)
from tests.support.control import NOW, RULES, Scene, canaries, known, samples

FAILED = Outcome.ENGINE_FAULT


def relaunches(decision) -> list[str]:
    return [each.engine for each in decision.actions if isinstance(each, Relaunch)]


def alerts(decision) -> list[str]:
    return [each.reason for each in decision.actions if isinstance(each, Alert)]


def drained(**memory) -> Scene:
    """A scene whose first engine is slow and has just been taken away."""
    scene = Scene(**memory)
    scene.slow()
    scene.looks(3)
    assert scene.own.health is Health.DRAINING
    return scene


def verifying() -> Scene:
    scene = drained()
    scene.empty()
    scene.look()
    assert scene.own.health is Health.VERIFY
    return scene


def relaunching() -> Scene:
    scene = verifying()
    scene.canaries["m-0"] = canaries(idle=0.75, loaded=0.9, at=scene.now)
    assert relaunches(scene.look()) == ["m-0"]
    return scene


def reborn(idle: float = 0.25, loaded: float = 0.3) -> Scene:
    """The next incarnation is up, and its canaries took so long."""
    scene = relaunching()
    scene.report("m-0", state=EngineState.STARTING, since=scene.now)
    scene.look()
    scene.samples["m-0"] = ()
    scene.report("m-0", state=EngineState.READY, incarnation=2, since=scene.now + 5)
    scene.canaries["m-0"] = canaries(
        idle=idle, loaded=loaded, at=scene.now, incarnation=2
    )
    scene.look()
    assert scene.own.health is Health.CHECKING
    return scene


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


def test_what_is_common_is_over_when_it_is_well_below_not_just_below():
    scene = Scene()
    for times, stands in ((3.0, True), (1.3, True), (3.0, True), (1.0, False)):
        for name in scene.engines:
            scene.slow(name, times)
        told = alerts(scene.look())
        assert bool(scene.memory.models["m"].common) is stands
        assert len(told) == (scene.now == NOW + 10)


def test_an_engine_that_passed_lately_is_not_suspected():
    scene = Scene(quiet_until=20_000.0)
    scene.slow()
    scene.looks(6)
    assert scene.own.health is Health.HEALTHY


def test_relaunches_and_passes_are_forgiven_after_two_quiet_hours():
    scene = Scene(passes=2, relaunches=3, since=1000.0)
    scene.look()
    assert (scene.own.passes, scene.own.relaunches) == (0, 0)


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


def test_an_engine_that_passes_again_is_believed_and_people_are_told():
    scene = verifying()
    scene.remember("m-0", passes=1)
    scene.canaries["m-0"] = canaries(at=scene.now)
    (text,) = alerts(scene.look())
    assert "passed 2 times" in text
    assert scene.own.offset == pytest.approx(math.log(3))
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
    scene = reborn()
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
    scene = reborn(idle=0.5)
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
    scene = reborn()
    scene.canaries["m-0"] = ()
    scene.looks(6)
    assert scene.own.health is Health.PROBATION


def degraded(engines: int = 4, **memory) -> Scene:
    usual = {"health": Health.DEGRADED, "slowdown": 2.0, "reason": "slow: yes"}
    return Scene(engines, **usual | memory)


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


# Errors


def failing(seconds: float = 0.2) -> Scene:
    scene = Scene()
    scene.samples["m-0"] = (
        *samples(number=15, outcome=FAILED),
        *samples(number=25),
    )
    return scene


def test_an_engine_that_fails_on_two_ticks_is_emptied_and_relaunched():
    scene = failing()
    scene.look()
    assert scene.own.health is Health.HEALTHY
    scene.look()
    assert (scene.own.health, scene.own.cause) == (Health.DRAINING, "error")
    scene.empty()
    decision = scene.look()
    assert relaunches(decision) == ["m-0"]
    assert scene.own.reason.startswith("errors: 15 of 40")


def test_an_engine_that_fails_always_is_worth_a_relaunch_even_if_it_is_the_last():
    scene = Scene(1)
    scene.samples["m-0"] = samples(outcome=FAILED)
    scene.looks(2)
    assert scene.own.health is Health.DRAINING


def test_failures_on_probation_count_as_well():
    scene = failing()
    scene.remember("m-0", health=Health.PROBATION, since=scene.now)
    scene.looks(2)
    assert scene.own.health is Health.DRAINING


def test_slowness_waits_for_the_end_of_probation():
    scene = Scene(health=Health.PROBATION, since=10_000.0)
    scene.slow()
    scene.looks(2)
    assert scene.own.health is Health.PROBATION
    scene.look()
    assert scene.own.health is Health.DRAINING


# Hang


def hanging(engines: int = 4, **memory) -> Scene:
    scene = Scene(engines, **memory)
    scene.loads["m-0"] = EngineLoad(5, 100.0, 100.0)
    scene.metrics["m-0"] = Metrics(tokens_at=scene.now - 40)
    return scene


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


def test_an_engine_without_a_sign_of_life_is_a_hang():
    scene = Scene()
    scene.now += 100.0
    scene.report("m-0", alive_at=scene.now - 61)
    decision = consider(scene.snapshot(), RULES, scene.now)
    assert relaunches(decision) == ["m-0"]
    assert decision.memory.engines["m-0"].reason == (
        "hung: no token for 61 s with 2 in flight, oldest 1 s"
    )


# Guards


def test_of_four_engines_one_at_a_time_is_taken_away_and_of_eight_two():
    for engines, most in ((2, 1), (4, 1), (8, 2), (12, 3)):
        scene = Scene(engines)
        for name in list(scene.engines)[: (engines - 1) // 2]:
            scene.slow(name)
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


# What is seen, limits, memory


def test_a_dead_launchers_engines_are_not_judged():
    scene = Scene()
    scene.slow()
    scene.hosts, scene.pins = (), tuple(w.spec for w in scene.wishes.values())
    assert [each.actions for each in scene.looks(4)] == [()] * 4


def test_limits_move_every_five_seconds_and_are_wished():
    scene = Scene()
    scene.metrics["m-0"] = Metrics(itl_seconds=0.2)
    scene.look(after=2.0)
    assert scene.wishes["m-0"].limit == 28
    scene.look(after=2.0)
    assert scene.wishes["m-0"].limit == 28
    scene.look(after=3.0)
    assert scene.wishes["m-0"].limit == 25


def test_an_engine_that_is_slow_at_every_token_keeps_its_limit():
    scene = Scene(baseline=8.0)
    scene.metrics["m-0"] = Metrics(itl_seconds=0.7)
    scene.looks(3)
    assert scene.own.limit == 0.0
    scene.metrics["m-0"] = Metrics(itl_seconds=0.9)
    scene.look()
    assert scene.own.limit == pytest.approx(28.8)


def test_failures_lower_the_limit_and_a_full_limit_is_the_models():
    scene = Scene(limit=31.9)
    scene.metrics["m-0"] = Metrics(itl_seconds=0.02)
    scene.loads["m-0"] = EngineLoad(31, 1.0, 1.0)
    scene.look()
    assert scene.own.limit == 0.0
    scene.samples["m-0"] = samples(number=1, outcome=FAILED, now=scene.now)
    scene.look(after=5.0)
    assert scene.own.limit == pytest.approx(22.4)


def test_gpu_types_have_fits_of_their_own_and_a_new_place_is_a_new_engine():
    scene = Scene(2)
    gpus = [Gpu(n, f"u{n}", name, 80, 0, 80) for n, name in enumerate(("A", "B"))]
    scene.hosts, scene.spec = (
        (Host("a", gpus=tuple(gpus)),),
        replace(scene.spec, gpus=1),
    )
    for place, name in enumerate(scene.wishes):
        spec = replace(scene.wishes[name].spec, uuids=(f"u{place}",))
        scene.wishes[name] = Wish(spec)
    scene.look()
    assert scene.own.place == "a/u0"
    assert scene.own.baseline == 0.0
    assert {"m@A", "m@B"} <= set(scene.memory.types)


def test_canaries_go_on_being_numbered_when_memory_is_lost():
    scene = verifying()
    scene.memory = replace(scene.memory, engines={})
    scene.look()
    assert scene.wishes["m-0"].hold == ""
    assert scene.own.round == scene.wishes["m-0"].canary == 1


def test_memory_survives_the_store():
    scene = reborn()
    text = to_json(scene.memory)
    assert from_json(text) == scene.memory
    assert to_json(from_json(text)) == text
    assert from_json("") == HealthMemory()


def test_a_later_versions_memory_can_be_read():
    text = to_json(Scene().memory).replace('"place"', '"later": 1, "place"')
    assert from_json(text) == Scene().memory


def test_a_fit_that_is_not_there_yet_survives_too():
    scene = Scene()
    scene.memory = replace(scene.memory, types={"m@": TypeMemory()})
    assert from_json(to_json(scene.memory)) == scene.memory


def test_an_engine_of_which_nobody_has_reported_is_waited_for():
    scene = Scene()
    del scene.engines["m-0"]
    scene.look()
    assert scene.own == known()


def test_what_leaves_the_fleet_is_forgotten():
    scene = Scene()
    scene.look()
    del scene.wishes["m-3"]
    scene.spec = replace(scene.spec, min_engines=3, max_engines=3)
    decision = consider(scene.snapshot(), RULES, scene.now + 10)
    assert "m-3" not in decision.memory.engines
