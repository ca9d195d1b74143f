"""What control decides from what it sees."""

from dataclasses import replace

import pytest

from modelserver.fleet.sections import RulesSection
from modelserver.inventory import Host
from modelserver.measured import EngineLoad
from modelserver.policy.actions import Drop, Relaunch, Want
from modelserver.policy.decide import apply, decide
from modelserver.policy.snapshot import Snapshot
from modelserver.values import (
    Cause,
    EngineReport,
    EngineSpec,
    EngineState,
    Kind,
    ModelSpec,
    Wish,
)

NOW = 1000.0
RULES = RulesSection(hang_seconds=60, relaunch_pause_seconds=10)
SPEC = EngineSpec("m-0", "m", "a")
ENGINE = EngineReport(
    "m-0", "m", "a", EngineState.READY, 3, since=100.0, alive_at=937.0
)
HUNG = Relaunch("m-0", 3, "hung: no token for 63 s", Cause.HUNG)


def snapshot(
    engine: EngineReport = ENGINE, wish: Wish | None = None, **more
) -> Snapshot:
    values = {
        "specs": (ModelSpec("m", Kind.COMPLETION, "/m", "sglang-cpu"),),
        "pins": (),
        "hosts": (Host("a"),),
        "engines": {engine.id: engine},
        "wishes": {"m-0": wish or Wish(SPEC)},
        "loads": {},
    }
    return Snapshot(**values | more)


def test_an_engine_without_a_token_for_longer_than_the_rule_is_relaunched():
    assert decide(snapshot(), RULES, NOW) == (HUNG,)


def test_the_reason_tells_what_the_engine_holds():
    loads = {"m-0": EngineLoad(4, 80.2, 63.0)}
    (action,) = decide(snapshot(loads=loads), RULES, NOW)
    assert action.reason == "hung: no token for 63 s with 4 in flight, oldest 80 s"


def test_an_idle_load_is_not_mentioned():
    loads = {"m-0": EngineLoad(0, 0.0, 63.0)}
    assert decide(snapshot(loads=loads), RULES, NOW) == (HUNG,)


def test_a_token_at_the_limit_is_in_time():
    assert decide(snapshot(replace(ENGINE, alive_at=940.0)), RULES, NOW) == ()


def test_the_same_incarnation_is_relaunched_once_only():
    wish = Wish(SPEC, relaunch=3)
    assert decide(snapshot(wish=wish), RULES, NOW) == ()


def test_the_next_incarnation_can_be_relaunched_again():
    wish = Wish(SPEC, relaunch=2)
    assert decide(snapshot(wish=wish), RULES, NOW) == (HUNG,)


@pytest.mark.parametrize("state", [state for state in EngineState if not state.serves])
def test_only_a_ready_engine_can_hang(state: EngineState):
    assert decide(snapshot(replace(ENGINE, state=state)), RULES, NOW) == ()


def test_an_engine_ready_for_less_than_the_pause_is_left_alone():
    rules = RulesSection(hang_seconds=10, relaunch_pause_seconds=120)
    engine = replace(ENGINE, since=900.0, alive_at=900.0)
    assert decide(snapshot(engine), rules, NOW) == ()
    assert decide(snapshot(engine), rules, NOW + 20)


def test_time_before_the_engine_was_ready_does_not_count_as_silence():
    assert decide(snapshot(replace(ENGINE, since=990, alive_at=1)), RULES, NOW) == ()


def test_the_silence_of_a_dead_host_says_nothing_about_its_engines():
    pin = (EngineSpec("m-0", "m", "a"),)
    assert decide(snapshot(hosts=(), pins=pin), RULES, NOW) == ()


def test_an_engine_that_moves_is_not_relaunched_too():
    actions = decide(snapshot(hosts=(Host("b"),)), RULES, NOW)
    assert actions == (Want(replace(SPEC, host="b")),)


def test_the_report_of_the_host_that_an_engine_left_is_stale():
    hosts = (Host("a"), Host("b"))
    wish = Wish(replace(SPEC, host="b"))
    assert decide(snapshot(wish=wish, hosts=hosts), RULES, NOW) == ()


def test_an_engine_of_somebody_else_is_not_relaunched():
    pin = replace(SPEC, url="http://far:1")
    assert decide(snapshot(wish=Wish(pin), pins=(pin,)), RULES, NOW) == ()


def test_an_engine_that_nobody_wants_is_not_relaunched():
    assert decide(snapshot(specs=(), wishes={}), RULES, NOW) == ()


def test_an_engine_whose_model_left_is_dropped_and_not_relaunched():
    drop = Drop("m-0", "model m left the fleet")
    assert decide(snapshot(specs=()), RULES, NOW) == (drop,)


def test_a_relaunch_applied_gives_no_second_one():
    wishes = apply([HUNG], {"m-0": Wish(SPEC)}, token=7)
    assert wishes == {
        "m-0": Wish(SPEC, 3, "hung: no token for 63 s", Cause.HUNG, token=7)
    }
    assert decide(snapshot(wishes=wishes), RULES, NOW) == ()


def test_a_new_place_keeps_the_pending_relaunch():
    place = replace(SPEC, host="b")
    wishes = apply([Want(place)], {"m-0": Wish(SPEC, relaunch=3)}, token=7)
    assert wishes == {"m-0": Wish(place, relaunch=3, token=7)}


def test_a_first_wish_and_a_drop():
    wishes = apply([Want(SPEC), Drop("x-0", "")], {}, token=7)
    assert wishes == {"m-0": Wish(SPEC, token=7), "x-0": None}


def test_a_lowered_limit_outlives_a_new_place_and_a_relaunch():
    old = Wish(SPEC, limit=4, degraded="slow: 2.1x")
    for action in (HUNG, Want(replace(SPEC, host="b"))):
        wish = apply([action], {"m-0": old}, token=7)["m-0"]
        assert wish
        assert (wish.limit, wish.degraded) == (4, "slow: 2.1x")


def test_a_degraded_engine_that_hangs_is_relaunched_too():
    degraded = replace(ENGINE, state=EngineState.DEGRADED)
    assert decide(snapshot(degraded), RULES, NOW) == (HUNG,)
