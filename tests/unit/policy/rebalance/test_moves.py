"""Two simulated hours of the cases that matter most, with one seed each."""

from tests.scenarios.moves import (
    BURSTS,
    OVERLOADED,
    STEP,
    TWO_HOURS,
    mixed_sizes,
    sleeper,
)


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
