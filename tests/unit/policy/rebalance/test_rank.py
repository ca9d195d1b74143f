"""Models that go before others: by rank, and by the clock."""

from dataclasses import replace

from modelserver.policy.rebalance.deciding import rebalance
from modelserver.policy.rebalance.ledger import Ledger
from modelserver.policy.rebalance.state import (
    EngineView,
    GpuMove,
    ModelView,
    PastMove,
    RebalanceOutcome,
    RebalanceView,
)
from modelserver.policy.rebalance.timetable import Lead
from modelserver.schedules import ScheduledWindow
from modelserver.values import EngineState, ModelSpec
from tests.scenarios.moves_world import model
from tests.support.rebalance import (
    BUSY,
    FULL,
    HOT,
    NOW,
    RULES,
    A,
    B,
    engines,
    host,
    remembered,
    said,
    scene,
)

HIGH = replace(A, priority=1)
#: From midnight of the first day, which is a Thursday: NOW is at 2:46:40.
NIGHT = ScheduledWindow(0, 180, (3,), 6, "UTC")
SOON = ScheduledWindow(170, 300, (3,), 6, "UTC")


def both_hot(a: ModelSpec = HIGH, b: ModelSpec = B, **more: object) -> RebalanceOutcome:
    """Two hot models with four engines each, and nothing free."""
    view = scene(a, b, 2000, FULL)
    models = (view.models[0], replace(view.models[1], waiting=2000))
    memory = replace(remembered(FULL, a=HOT, b=HOT), **more)  # type: ignore[arg-type]
    return rebalance(replace(view, models=models), memory, RULES, NOW)


def test_a_hot_model_takes_from_a_hot_one_of_lower_rank() -> None:
    outcome = both_hot()
    (flight,) = outcome.memory.moves
    assert (flight.model, flight.donors) == ("a", ("b-3",))
    assert "b-3 end for it, outranked by it" in said(outcome)


def test_never_the_other_way_round() -> None:
    outcome = both_hot(A, replace(B, priority=1))
    assert [move.model for move in outcome.memory.moves] == ["b"]
    assert both_hot(A, B).memory.moves == ()


def test_the_lower_one_keeps_its_min_engines() -> None:
    outcome = both_hot(HIGH, replace(B, min_engines=4))
    assert outcome.memory.moves == ()
    assert "b keeps min_engines 4;" in said(outcome)


def test_what_rank_takes_is_no_cost_of_moves() -> None:
    meters = both_hot().memory.meters
    assert meters["a"].ledger.gained == meters["b"].ledger.gained == 0


def test_rank_needs_no_patience_and_the_return_has_one() -> None:
    gave = (PastMove(NOW - 100, "a", "b"),)
    assert [move.model for move in both_hot(past=gave).memory.moves] == ["a"]
    took = (PastMove(NOW - 100, "b", "a"),)
    memory = replace(remembered(FULL, a=BUSY, b=HOT), past=took)
    view = scene(HIGH, B, 0, FULL)
    models = (view.models[0], replace(view.models[1], waiting=90_000))
    outcome = rebalance(replace(view, models=models), memory, RULES, NOW)
    assert outcome.memory.moves == ()
    assert "b gave a an engine 100 s ago, and they turn only after 900" in said(outcome)
    later = replace(memory, past=(PastMove(NOW - 901, "b", "a"),))
    again = rebalance(replace(view, models=models), later, RULES, NOW)
    assert [move.model for move in again.memory.moves] == ["b"]


def test_an_engine_that_loads_for_the_lower_one_is_the_first_to_go() -> None:
    loads = EngineView("b-3", "b", "h", EngineState.STARTING, ("GPU-7",))
    held = [*FULL[:-1], loads]
    flight = GpuMove(NOW - 10, "b-3", "b", "h", ("GPU-7",), starts_at=NOW - 10)
    memory = replace(remembered(held, a=HOT, b=HOT), moves=(flight,))
    outcome = rebalance(scene(HIGH, B, 2000, held), memory, RULES, NOW)
    (taken,) = [move for move in outcome.memory.moves if move.model == "a"]
    assert taken.donors == ("b-3",)


def test_who_can_spare_an_engine_is_asked_before_who_is_outranked() -> None:
    b, c = model("b", 0, 3), model("c", 0, 3)
    held = [*engines("a", 0, 1), *engines("b", 2, 3), *engines("c", 4, 5)]
    memory = remembered(held, a=HOT, b=HOT, c=replace(BUSY, arrivals=0.1, recent=0.1))
    models = tuple(
        ModelView(spec, wait, load_seconds=90)
        for spec, wait in ((HIGH, 2000), (b, 2000), (c, 0))
    )
    view = RebalanceView(models, tuple(held), (host(6, held),))
    (flight,) = rebalance(view, memory, RULES, NOW).memory.moves
    assert flight.donor_models == ("c",)


# By the clock.


def test_a_window_raises_the_minimum_while_it_is_in_force() -> None:
    a = replace(A, schedule=(NIGHT,))
    memory = remembered(FULL, a=BUSY, b=BUSY)
    outcome = rebalance(scene(a, B, 0, FULL, gpus=10), memory, RULES, NOW)
    assert sum(each.model == "a" for each in outcome.wanted) == 6
    assert outcome.minimums == {"a": 6, "b": 1}
    later = rebalance(scene(a, B, 0, FULL), memory, RULES, NOW + 900)
    assert later.minimums["a"] == 1


def test_engines_are_asked_for_before_the_window_begins() -> None:
    """Five engines from others, two at once: T is 60 + 180 s, three times."""
    lead = Lead(move_seconds=240, gpus_at_once=2)
    assert lead.seconds(SOON, A, RULES) == 4 * 30 + 5 * 60 + 3 * 240
    a = replace(A, schedule=(SOON,))
    memory = remembered(FULL, a=BUSY, b=BUSY)
    for now, least in ((NOW, 6), (NOW - 1500, 1)):
        outcome = rebalance(scene(a, B, 0, FULL), memory, RULES, now)
        assert outcome.minimums["a"] == least


def test_no_window_asks_for_more_than_max_engines() -> None:
    a = replace(A, max_engines=5, schedule=(NIGHT,))
    outcome = rebalance(
        scene(a, B, 0, FULL), remembered(FULL, a=BUSY, b=BUSY), RULES, NOW
    )
    assert outcome.minimums["a"] == 5


def needs_by_clock(a: ModelSpec, b: ModelSpec) -> RebalanceOutcome:
    """Two of a's engines have no place since its window began; b is hot."""
    waits = [EngineView(f"a-{n}", "a", "", EngineState.PENDING) for n in (4, 5)]
    held = [*FULL, *waits]
    view = scene(a, b, 0, held)
    models = (view.models[0], replace(view.models[1], waiting=2000))
    memory = remembered(held, a=replace(BUSY, hot_ticks=2), b=HOT)
    return rebalance(replace(view, models=models), memory, RULES, NOW)


def test_by_the_clock_a_model_takes_by_rank() -> None:
    outcome = needs_by_clock(replace(HIGH, schedule=(NIGHT,)), B)
    (flight,) = outcome.memory.moves
    assert (flight.engine, flight.donors) == ("a-4", ("b-3",))
    assert "a needs more by its schedule 0:00-3:00 thu UTC: 6 engines" in said(outcome)


def test_without_rank_the_schedule_says_why_it_cannot_be_kept() -> None:
    outcome = needs_by_clock(replace(A, schedule=(NIGHT,)), B)
    assert outcome.memory.moves == ()
    text = "needs more by its schedule 0:00-3:00 thu UTC: 6 engines; b needs engines"
    assert text in said(outcome)


def test_a_scheduled_minimum_yields_to_a_higher_one_that_is_not_met() -> None:
    b = replace(B, schedule=(replace(NIGHT, min_engines=4),))
    assert needs_by_clock(replace(HIGH, schedule=(NIGHT,)), b).memory.moves
    hot = both_hot(HIGH, b)
    assert hot.memory.moves == ()
    assert "b keeps min_engines 4 of its schedule" in said(hot)


def test_what_a_schedule_keeps_does_not_fall_asleep() -> None:
    quiet = replace(BUSY, quiet_since=NOW - 5000, ledger=Ledger(gained=1))
    memory = remembered(FULL, a=quiet, b=quiet)
    a = replace(A, schedule=(replace(NIGHT, min_engines=3),))
    outcome = rebalance(scene(a, B, 0, FULL), memory, RULES, NOW)
    assert sum(each.model == "a" for each in outcome.wanted) == 3
    assert outcome.memory.meters["a"].ledger.gained == 0
