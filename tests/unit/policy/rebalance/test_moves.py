"""Two simulated hours of the cases that matter most, with one seed each."""

import pytest

from tests.scenarios.moves import (
    BURSTS,
    OVERLOADED,
    STEP,
    TWO_HOURS,
    mixed_sizes,
    sleeper,
)
from tests.scenarios.rank import (
    CLOCK,
    EQUAL,
    KEPT,
    LOSS,
    RANKED,
    TINY,
    WAVES,
    ranked,
    run_rank,
    two_hosts,
)
from tests.scenarios.turns import lasting, rounds, run_turns, sides


def test_a_step_moves_two_gpus_and_none_back() -> None:
    world = STEP(0, True).run(TWO_HOURS)
    assert 2 <= len(world.moves) <= 3
    assert (world.reversals(), world.broken, world.lost()) == (0, [], 0)


def test_bursts_of_700_move_nothing() -> None:
    assert BURSTS(0, True).run(TWO_HOURS).moves == []


def test_two_overloaded_models_move_nothing() -> None:
    assert OVERLOADED(0, True).run(3600).moves == []


def test_engines_of_two_gpus_and_of_one_give_to_each_other() -> None:
    world = mixed_sizes(0, True).run(TWO_HOURS)
    takers = {move.model for move in world.donations}
    assert "big" in takers
    assert (world.reversals(), world.broken, world.lost()) == (0, [], 0)


def test_a_sleeping_model_is_woken_by_one_request_and_answers_it() -> None:
    world = sleeper(0, True).run(TWO_HOURS)
    assert world.starts["c"] == 1
    assert world.finished["c"] == world.arrived["c"] == 21
    assert world.lost() == 0


@pytest.mark.parametrize("period", [300, 600, 900])
def test_load_that_changes_sides_costs_little(period: float) -> None:
    found = run_turns("sides", sides(period), seeds=[0])
    assert found.shares[0] <= 1.1
    assert found.steered[0].turns() <= 3


def test_load_that_goes_round_three_models_costs_little() -> None:
    assert run_turns("rounds", rounds(300), seeds=[0]).shares[0] <= 1.1


def test_where_a_turn_pays_gpus_follow_it() -> None:
    assert run_turns("sides", sides(1800), seeds=[0]).shares[0] <= 0.6


def test_after_turns_a_change_that_lasts_is_followed() -> None:
    found = run_turns("lasting", lasting, seeds=[0], seconds=10_800)
    assert found.shares[0] <= 0.5


def test_a_ranked_day_gets_gpus_from_a_night_that_is_not_done() -> None:
    first, equal = (run_rank("day", make, [0]) for make in (RANKED, EQUAL))
    assert first.reached(4)[0] <= 720
    assert first.wait("day") <= 0.1 * equal.wait("day")
    assert equal.worlds[0].donations == []


def test_a_minimum_is_kept_from_rank_and_a_tiny_demand_takes_nothing() -> None:
    (kept,) = run_rank("kept", KEPT, [0]).worlds
    assert kept.lowest["night"] == 4
    assert kept.broken == []
    assert run_rank("tiny", TINY, [0]).worlds[0].donations == []


def test_by_the_clock_engines_are_ready_in_time_and_not_long_before() -> None:
    assert -600 <= run_rank("clock", CLOCK, [0]).reached(4)[0] <= 0


def test_waves_of_high_rank_turn_ever_more_seldom() -> None:
    (world,) = run_rank("waves", WAVES, [0]).worlds
    assert world.turns() <= 4
    assert world.lost() == 0


def test_after_a_host_is_lost_the_higher_rank_gets_its_minimum_back() -> None:
    found = run_rank("loss", two_hosts(ranked(3)), [0], [LOSS])
    last = max(found.served[0])
    assert found.served[0][last] >= 3
    assert found.worlds[0].lowest["night"] == 1
