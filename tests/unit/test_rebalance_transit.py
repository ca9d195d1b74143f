"""How moves go on: donors that do not end, GPUs that are gone, engines that fail."""

from dataclasses import replace

from modelserver.inventory import Host
from modelserver.model import EngineState
from modelserver.policy.rebalance import (
    EngineView,
    Memory,
    Meter,
    ModelView,
    Move,
    Outcome,
    Past,
    View,
    rebalance,
)
from tests.rebalance_support import (
    BUSY,
    FULL,
    HOT,
    NOW,
    RULES,
    A,
    B,
    engines,
    host,
    ids,
    move,
    remembered,
    scene,
)
from tests.scenarios.moves_world import model


def said(outcome: Outcome) -> str:
    return " | ".join(str(each) for each in outcome.reasons)


def moving(outcome: Outcome) -> bool:
    return any(each.engine == "a-4" for each in outcome.memory.moves)


def started(state: EngineState, after: float) -> Outcome:
    """The moved engine has been in a state for so long since its donor ended."""
    memory = move().memory
    without = FULL[:-1]
    begun = rebalance(scene(A, B, 2000, without), memory, RULES, NOW + 20)
    new = EngineView("a-4", "a", "h", state, ("GPU-7",))
    view = scene(A, B, 2000, [*without, new])
    return rebalance(view, begun.memory, RULES, NOW + 20 + after)


def test_a_donor_that_does_not_end_ends_the_move() -> None:
    memory = move().memory
    ending = [*FULL[:-1], replace(FULL[-1], state=EngineState.DRAINING)]
    view = scene(A, B, 0, ending)
    drain = B.drain_seconds
    assert rebalance(view, memory, RULES, NOW + drain).memory.moves
    over = rebalance(view, memory, RULES, NOW + drain + 1000)
    assert over.memory.moves == ()
    assert "gives up a-4: b-3 did not end" in said(over)


def test_a_donor_of_a_model_that_left_the_fleet_is_waited_for_as_others_are() -> None:
    memory = move().memory
    ending = [*FULL[:-1], replace(FULL[-1], state=EngineState.DRAINING)]
    view = scene(A, B, 2000, ending)
    alone = replace(view, models=view.models[:1])
    over = rebalance(alone, memory, RULES, NOW + 1000)
    assert over.memory.moves == ()
    gone = replace(scene(A, B, 2000, FULL[:4]), models=view.models[:1])
    assert "a-4" in ids(rebalance(gone, memory, RULES, NOW + 20))


def test_how_long_donors_drain_is_a_mean_over_moves() -> None:
    memory = move().memory
    first = rebalance(scene(A, B, 2000, FULL[:-1]), memory, RULES, NOW + 20)
    assert first.memory.meters["b"].drain_seconds == 20
    meters = {**memory.meters, "b": replace(memory.meters["b"], drain_seconds=40.0)}
    known = replace(memory, meters=meters)
    second = rebalance(scene(A, B, 2000, FULL[:-1]), known, RULES, NOW + 20)
    assert second.memory.meters["b"].drain_seconds == 30


def test_an_engine_that_serves_has_arrived_and_tells_how_long_a_load_takes() -> None:
    outcome = started(EngineState.READY, 60)
    assert not moving(outcome)
    assert outcome.memory.meters["a"].load_seconds == {"h": 60.0}
    assert "a-4 serves" in said(outcome)


def test_an_engine_that_loads_is_waited_for_but_not_for_ever() -> None:
    assert moving(started(EngineState.STARTING, 60))
    assert not moving(started(EngineState.STARTING, 3000))


def test_an_engine_that_dies_while_it_starts_ends_the_move() -> None:
    outcome = started(EngineState.BACKOFF, 60)
    assert not moving(outcome)
    assert "a-4 did not start" in said(outcome)


def test_an_engine_that_is_no_longer_wanted_ends_the_move() -> None:
    begun = rebalance(scene(A, B, 2000, FULL[:-1]), move().memory, RULES, NOW + 20)
    fewer = replace(A, max_engines=4)
    outcome = rebalance(scene(fewer, B, 2000, FULL[:-1]), begun.memory, RULES, NOW + 25)
    assert outcome.memory.moves == ()
    assert "max_engines is 4" in said(outcome)


def test_gpus_that_somebody_took_are_replaced_by_free_ones() -> None:
    memory = move().memory
    stranger = EngineView("c-0", "c", "h", EngineState.READY, ("GPU-7",))
    held = [*FULL[:-2], stranger]
    outcome = rebalance(scene(A, B, 2000, held), memory, RULES, NOW + 20)
    (new,) = [each for each in outcome.wanted if each.engine == "a-4"]
    assert new.uuids == ("GPU-6",)


def test_gpus_that_do_not_get_free_end_the_move() -> None:
    memory = move().memory
    stranger = EngineView("c-0", "c", "h", EngineState.READY, ("GPU-7",))
    view = scene(A, B, 2000, [*FULL[:-1], stranger])
    assert rebalance(view, memory, RULES, NOW + 20).memory.moves
    over = rebalance(view, memory, RULES, NOW + 400)
    assert "its GPUs did not get free" in said(over)


def test_gpus_of_another_host_do_where_the_first_is_gone() -> None:
    memory = move().memory
    view = scene(A, B, 2000, FULL[:-1])
    other = Host("other", host(1, []).gpus)
    moved = replace(view, hosts=(other,))
    outcome = rebalance(moved, memory, RULES, NOW + 20)
    (new,) = [each for each in outcome.wanted if each.engine == "a-4"]
    assert new.host == "other"


# Who may give.


def refused(b: Meter, waiting: int = 2000, **values: object) -> str:
    """Why nobody gives the hot model a GPU."""
    memory = replace(remembered(FULL, a=HOT, b=b), **values)  # type: ignore[arg-type]
    outcome = rebalance(scene(A, B, waiting, FULL), memory, RULES, NOW)
    assert outcome.memory.moves == ()
    return said(outcome)


def test_a_donor_has_to_be_watched_for_a_while() -> None:
    assert "watched for 100 s only" in refused(replace(BUSY, observed=70.0))


def test_a_donor_with_too_much_in_flight_keeps_its_engines() -> None:
    full = [replace(each, inflight=64 * (each.model == "b")) for each in FULL]
    memory = remembered(full, a=HOT, b=BUSY)
    outcome = rebalance(scene(A, B, 2000, full), memory, RULES, NOW)
    assert "has 256 in flight, too many for 3 engines" in said(outcome)


def test_who_gave_lately_gets_nothing_back_at_once() -> None:
    past = (Past(NOW - 200, "a", "b"),)
    assert "a gave b an engine 200 s ago" in refused(BUSY, waiting=1500, past=past)


def test_the_oftener_gpus_turned_the_longer_the_next_turn_waits() -> None:
    past = (Past(NOW - 700, "b", "a"), Past(NOW - 200, "a", "b"))
    assert "after 1 quick turns" in refused(BUSY, past=past)


def test_after_a_quarter_of_an_hour_gpus_may_come_back() -> None:
    memory = replace(remembered(FULL, a=HOT, b=BUSY), past=(Past(NOW - 901, "a", "b"),))
    assert rebalance(scene(A, B, 2000, FULL), memory, RULES, NOW).memory.moves


def test_moves_wait_for_each_other() -> None:
    past = (Past(NOW - 30, "b", "c"),)
    assert "another move has to be over first" in refused(BUSY, past=past)


def test_a_model_has_no_more_than_its_max_engines() -> None:
    memory = remembered(FULL, a=HOT, b=BUSY)
    a = replace(A, max_engines=4)
    outcome = rebalance(scene(a, B, 2000, FULL), memory, RULES, NOW)
    assert "is hot and has its max_engines 4" in said(outcome)


def test_a_move_that_gains_less_than_it_takes_is_not_made() -> None:
    few = replace(HOT, arrivals=0.5, recent=0.5, held=2400.0)
    memory = remembered(FULL, a=few, b=BUSY)
    outcome = rebalance(scene(A, B, 2400, FULL), memory, RULES, NOW)
    assert outcome.memory.moves == ()
    assert "a move would take 90 s and gain " in said(outcome)


def test_nobody_is_asked_where_no_other_model_has_a_gpu() -> None:
    held = engines("a", 0, 1, 2, 3)
    memory = remembered(held, a=HOT, b=BUSY)
    view = scene(A, replace(B, min_engines=0), 2000, held, gpus=4)
    outcome = rebalance(view, memory, RULES, NOW)
    assert "no other model has a GPU that it could give" in said(outcome)


def test_models_without_gpus_take_none_from_others() -> None:
    a = model("a", 1, 7, gpus=0)
    held = [EngineView("a-0", "a", "h", EngineState.READY), *engines("b", 0, 1)]
    memory = remembered(held, a=HOT, b=BUSY)
    outcome = rebalance(scene(a, B, 2000, held, gpus=2), memory, RULES, NOW)
    assert all(not each.donors for each in outcome.memory.moves)
    assert {"b-0", "b-1"} <= ids(outcome)


def test_a_model_that_may_have_no_engine_is_not_woken() -> None:
    a = replace(A, min_engines=0, max_engines=0)
    view = View((ModelView(a, 5),), (), (host(1, []),))
    assert ids(rebalance(view, Memory(), RULES, NOW)) == set()


def test_an_engine_that_is_wanted_again_meanwhile_still_moves() -> None:
    begun = move().memory
    meters = {**begun.meters, "a": replace(begun.meters["a"], wanted=("a-4",))}
    memory = replace(begun, meters=meters)
    outcome = rebalance(scene(A, B, 0, FULL[:-1]), memory, RULES, NOW + 20)
    assert "a-4" in ids(outcome)
    assert moving(outcome)


def test_an_engine_that_waits_for_its_host_comes_if_it_has_its_gpus() -> None:
    held = [*engines("a", 0), *engines("b", 4, 5, 6, 7)]
    late = EngineView("a-1", "a", "h", EngineState.PENDING, ("GPU-1",))
    memory = remembered([*held, late], a=HOT, b=BUSY)
    outcome = rebalance(scene(A, B, 2000, [*held, late]), memory, RULES, NOW)
    grown = next(each for each in outcome.reasons if "is hot" in each.what)
    assert grown.figures["n"] == "2"


def test_engines_that_somebody_else_runs_are_none_of_its_business() -> None:
    view = scene(replace(A, engine="external"), B, 2000, FULL)
    outcome = rebalance(view, Memory(), RULES, NOW)
    assert {each.model for each in outcome.wanted} == {"b"}


def test_a_donor_that_gets_an_engine_itself_gives_none() -> None:
    flight = Move(NOW - 10, "b-4", "b", "h", (), starts_at=NOW - 10)
    memory = remembered(FULL, a=HOT, b=BUSY)
    meters = dict(memory.meters)
    meters["b"] = replace(meters["b"], wanted=(*meters["b"].wanted, "b-4"))
    memory = replace(memory, meters=meters, moves=(flight,))
    outcome = rebalance(scene(A, B, 2000, FULL), memory, RULES, NOW)
    assert "b needs engines itself" in said(outcome)


def test_two_small_engines_make_room_for_a_large_one() -> None:
    a = model("a", 1, 3, gpus=2)
    large = EngineView("a-0", "a", "h", EngineState.READY, ("GPU-0", "GPU-1"))
    held = [large, *engines("b", 2, 3, 4, 5, 6, 7)]
    memory = remembered(held, a=HOT, b=BUSY)
    (flight,) = rebalance(scene(a, B, 2000, held), memory, RULES, NOW).memory.moves
    assert set(flight.donors) == {"b-4", "b-5"}
    assert set(flight.uuids) == {"GPU-6", "GPU-7"}
