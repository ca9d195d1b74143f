"""What moves have cost, and whether GPUs may turn again."""

import json
from dataclasses import replace

import pytest

from modelserver.policy.rebalance.deciding import rebalance
from modelserver.policy.rebalance.ledger import (
    FORGET_SECONDS,
    Interval,
    Ledger,
    entered,
    moved,
)
from modelserver.policy.rebalance.state import (
    GpuMove,
    PastMove,
    RebalanceOutcome,
    from_json,
    to_json,
)
from modelserver.policy.rebalance.turning import patience_seconds
from tests.support.rebalance import (
    BUSY,
    FULL,
    HOT,
    NOW,
    RULES,
    A,
    B,
    remembered,
    said,
    scene,
)

TOOK = Ledger(gained=1, moved_at=NOW - 600, outward=True)
GAVE = Ledger(gained=-1, moved_at=NOW - 600, outward=True)
#: Five engines of 2/s answer for 30 s; four would have without moves.
PASSED = Interval(NOW, 30.0, 300.0, 500.0, 2.0, 4)


def test_a_model_that_took_spares_requests_their_wait():
    after = entered(TOOK, PASSED)
    assert (after.spared, after.excess) == (60.0, -1800.0)


def test_a_model_that_gave_holds_more_than_it_would():
    after = entered(GAVE, replace(PASSED, finished=180.0))
    assert (after.spared, after.excess) == (-60.0, 1800.0)
    assert after.cost(100.0) == 1800.0 + 60 * 100


def test_it_holds_no_more_than_what_waits():
    after = entered(GAVE, replace(PASSED, finished=0.0, waiting=10.0))
    assert after.spared == -10.0


def test_once_its_queue_is_empty_the_other_one_empties_too():
    idle = replace(PASSED, waiting=0.0, finished=60.0)
    assert entered(replace(GAVE, spared=-50.0), idle).spared == 0.0
    assert entered(replace(TOOK, spared=500.0), idle).spared == 500 - 180
    assert entered(replace(TOOK, spared=20.0), idle).spared == 0.0


def test_before_it_moved_or_was_measured_only_waiting_is_counted():
    assert entered(Ledger(), PASSED) == Ledger(waited=15_000.0)
    unknown = entered(TOOK, replace(PASSED, speed=None))
    assert unknown == replace(TOOK, waited=15_000.0)


def test_engines_that_stayed_for_hours_belong_where_they_are():
    old = replace(TOOK, moved_at=NOW - FORGET_SECONDS - 1, excess=90.0, spared=7.0)
    after = entered(old, PASSED)
    assert (after.gained, after.spared, after.excess) == (0, 0.0, 0.0)
    assert after.lost == 90.0


def test_leaving_again_after_coming_back_begins_a_new_sum():
    spent = replace(TOOK, excess=500.0)
    back = moved(spent, -1, NOW)
    assert (back.gained, back.excess, back.outward) == (0, 500.0, False)
    again = moved(back, 1, NOW)
    assert (again.gained, again.excess, again.lost) == (1, 0.0, 500.0)
    paid = moved(replace(back, excess=-500.0), 1, NOW)
    assert (paid.excess, paid.lost) == (-125.0, 0.0)
    assert moved(spent, 1, NOW).excess == 500.0


def move(*steps: float) -> list[PastMove]:
    """Moves at these times, each in the other direction than the one before."""
    return [
        PastMove(at, *("ab" if place % 2 else "ba")) for place, at in enumerate(steps)
    ]


@pytest.mark.parametrize(
    ("steps", "patience"),
    [
        ((0,), 900),
        ((0, 300), 1800),
        ((0, 300, 600), 3600),
        ((0, 300, 600, 900, 1200, 1500), 14_400),
        ((0, 300, 2100), 1800),
        ((0, 300, 4000), 900),
        ((0, 1000), 900),
    ],
)
def test_each_quick_turn_doubles_patience_and_slow_ones_halve_it(
    steps: tuple[float, ...], patience: float
):
    assert patience_seconds(move(*steps), RULES) == patience


def test_moves_in_one_direction_are_no_turn():
    same = [PastMove(0, "a", "b"), PastMove(60, "a", "b")]
    assert patience_seconds(same, RULES) == 900


def hot(a: Ledger, b: Ledger, waiting: int = 1500, **more: object) -> RebalanceOutcome:
    """A hot model beside one with little to do, with these ledgers."""
    meters = {"a": replace(HOT, ledger=a), "b": replace(BUSY, ledger=b)}
    memory = replace(remembered(FULL, **meters), **more)  # type: ignore[arg-type]
    return rebalance(scene(A, B, waiting, FULL), memory, RULES, NOW)


#: They gave each other engines long enough ago.
TURNED = (PastMove(NOW - 4000, "b", "a"), PastMove(NOW - 2000, "a", "b"))


def test_moves_that_cost_are_not_made_again():
    costly = Ledger(lost=9000.0, waited=100_000.0)
    outcome = hot(costly, Ledger(), past=TURNED)
    assert outcome.memory.moves == ()
    text = "moves have made requests of b and a wait 8981 s more in sum, of 144792 s"
    assert text in said(outcome)
    assert hot(replace(costly, lost=900.0), Ledger(), past=TURNED).memory.moves


def test_a_great_need_goes_before_what_moves_have_cost():
    costly = Ledger(lost=90_000.0, waited=100_000.0)
    assert hot(costly, Ledger(), past=TURNED).memory.moves == ()
    assert hot(costly, Ledger(), 9000, past=TURNED).memory.moves


def test_who_has_never_given_pays_for_nobodys_turns():
    costly = Ledger(lost=90_000.0, waited=100_000.0)
    assert hot(Ledger(), costly, past=TURNED[:1]).memory.moves


def test_engines_come_home_without_patience():
    past = (PastMove(NOW - 20, "a", "b"),)
    memory = replace(
        remembered(
            FULL,
            a=replace(HOT, hot_ticks=0, ledger=GAVE),
            b=replace(BUSY, ledger=TOOK, arrivals=6.0, recent=1.0),
        ),
        past=past,
    )
    busy = [replace(each, inflight=60) for each in FULL]
    outcome = rebalance(scene(A, B, 2000, busy), memory, RULES, NOW)
    (flight,) = outcome.memory.moves
    assert flight.donor_models == ("b",)
    ledgers = {name: each.ledger for name, each in outcome.memory.meters.items()}
    assert ledgers["a"].gained == ledgers["b"].gained == 0


def test_a_free_gpu_brings_an_engine_home():
    held = FULL[:-1]
    memory = remembered(held, a=replace(HOT, ledger=GAVE), b=BUSY)
    outcome = rebalance(scene(A, B, 2000, held), memory, RULES, NOW)
    assert outcome.memory.moves[0].donors == ()
    assert outcome.memory.meters["a"].ledger.gained == 0


def test_a_move_that_comes_to_nothing_counts_no_engine():
    flight = GpuMove(NOW - 90, "a-4", "a", "h", ("GPU-7",), ("b-3",), ("b",), 1)
    held = FULL[:-1]
    calm = replace(BUSY, ledger=TOOK)
    memory = replace(remembered(held, a=calm, b=calm), moves=(flight,))
    outcome = rebalance(scene(A, B, 0, held), memory, RULES, NOW)
    assert "gives up a-4: its queue is empty" in said(outcome)
    assert outcome.memory.meters["a"].ledger.gained == 0


def test_free_gpus_and_ranks_are_nobodys_cost_when_given_up():
    flight = GpuMove(NOW - 90, "a-4", "a", "h", ("GPU-7",), ("c-3",), ("c",), 1)
    held = FULL[:-1]
    memory = replace(
        remembered(held, a=replace(BUSY, ledger=TOOK), b=BUSY), moves=(flight,)
    )
    outcome = rebalance(scene(A, B, 0, held), memory, RULES, NOW)
    assert outcome.memory.meters["a"].ledger.gained == 1


def test_memory_of_the_version_before_is_read():
    memory = hot(TOOK, GAVE).memory
    values = json.loads(json.dumps(to_json(memory)))
    assert from_json(values) == memory
    for meter in values["meters"].values():
        del meter["ledger"]
    assert from_json(values).meters["a"].ledger == Ledger()
