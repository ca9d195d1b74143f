"""Who may give a GPU to a hot model, when, and what is said where nobody may."""

from dataclasses import replace

from modelserver.inventory import Gpu, Host
from modelserver.policy.rebalance.deciding import rebalance
from modelserver.policy.rebalance.state import (
    EngineView,
    GpuMove,
    Meter,
    ModelView,
    PastMove,
    RebalanceMemory,
    RebalanceView,
)
from modelserver.values import EngineSpec, EngineState
from tests.scenarios.moves_world import model
from tests.support import processes
from tests.support.rebalance import (
    BUSY,
    FULL,
    HOT,
    KNOWN,
    NOW,
    RULES,
    A,
    B,
    engines,
    host,
    ids,
    remembered,
    said,
    scene,
)


def refused(b: Meter, waiting: int = 2000, **values: object) -> str:
    """Why nobody gives the hot model a GPU."""
    memory = replace(remembered(FULL, a=HOT, b=b), **values)  # type: ignore[arg-type]
    outcome = rebalance(scene(A, B, waiting, FULL), memory, RULES, NOW)
    assert outcome.memory.moves == ()
    return said(outcome)


def test_a_donor_has_to_be_watched_for_a_while() -> None:
    assert "watched for only 100 s" in refused(replace(BUSY, observed=70.0))


def test_a_donor_with_too_much_in_flight_keeps_its_engines() -> None:
    full = [replace(each, inflight=64 * (each.model == "b")) for each in FULL]
    memory = remembered(full, a=HOT, b=BUSY)
    outcome = rebalance(scene(A, B, 2000, full), memory, RULES, NOW)
    assert "has 256 in flight, too many for 3 engines" in said(outcome)


def test_who_gave_lately_gets_nothing_back_at_once() -> None:
    past = (PastMove(NOW - 200, "a", "b"),)
    assert "a gave b an engine 200 s ago" in refused(BUSY, waiting=1500, past=past)


def test_the_oftener_gpus_turned_the_longer_the_next_turn_waits() -> None:
    past = (PastMove(NOW - 700, "b", "a"), PastMove(NOW - 200, "a", "b"))
    assert "they turn only after 1800 s" in refused(BUSY, past=past)


def test_after_a_quarter_of_an_hour_gpus_may_come_back() -> None:
    memory = replace(
        remembered(FULL, a=HOT, b=BUSY), past=(PastMove(NOW - 901, "a", "b"),)
    )
    assert rebalance(scene(A, B, 2000, FULL), memory, RULES, NOW).memory.moves


def test_moves_wait_for_each_other() -> None:
    past = (PastMove(NOW - 30, "b", "c"),)
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


def test_a_refusal_is_said_once_and_again_when_it_is_another() -> None:
    held = engines("a", 0, 1, 2, 3)
    memory = remembered(held, a=HOT, b=BUSY)
    view = scene(A, replace(B, min_engines=0), 2000, held, gpus=4)
    first = rebalance(view, memory, RULES, NOW)
    assert "no other model has a GPU" in said(first)
    assert said(rebalance(view, first.memory, RULES, NOW + 30)) == ""
    full = replace(view, models=(ModelView(replace(A, max_engines=4), 2000),))
    told = said(rebalance(full, first.memory, RULES, NOW + 30))
    assert "has its max_engines" in told


def test_a_refusal_in_which_only_numbers_changed_is_not_said_again() -> None:
    past = (PastMove(NOW - 200, "a", "b"),)
    memory = replace(remembered(FULL, a=HOT, b=BUSY), past=past)
    view = scene(A, B, 1500, FULL)
    first = rebalance(view, memory, RULES, NOW)
    assert "a gave b an engine 200 s ago" in said(first)
    later = rebalance(view, first.memory, RULES, NOW + 30)
    assert said(later) == ""
    forgot = {**first.memory.meters, "a": replace(first.memory.meters["a"], refused="")}
    again = rebalance(view, replace(first.memory, meters=forgot), RULES, NOW + 30)
    assert "a gave b an engine 230 s ago" in said(again)


def test_a_model_that_was_not_hot_in_between_is_told_again() -> None:
    held = engines("a", 0, 1, 2, 3)
    memory = remembered(held, a=HOT, b=BUSY)
    hot, calm = (scene(A, B, waiting, held, gpus=4) for waiting in (2000, 0))
    first = rebalance(hot, memory, RULES, NOW)
    idle = replace(first.memory.meters["a"], arrivals=0.0, recent=0.0, held=0.0)
    meters = {**first.memory.meters, "a": idle}
    quiet = replace(first.memory, meters=meters, ticked_at=NOW)
    calmed = rebalance(calm, quiet, RULES, NOW + 30)
    assert calmed.memory.meters["a"].hot_ticks == 0
    assert calmed.memory.meters["a"].refused == ""
    assert first.memory.meters["a"].refused


def test_models_without_gpus_take_none_from_others() -> None:
    a = model("a", 1, 7, gpus=0)
    held = [EngineView("a-0", "a", "h", EngineState.READY), *engines("b", 0, 1)]
    memory = remembered(held, a=HOT, b=BUSY)
    outcome = rebalance(scene(a, B, 2000, held, gpus=2), memory, RULES, NOW)
    assert all(not each.donors for each in outcome.memory.moves)
    assert {"b-0", "b-1"} <= ids(outcome)


def test_a_model_that_may_have_no_engine_is_not_woken() -> None:
    a = replace(A, min_engines=0, max_engines=0)
    view = RebalanceView((ModelView(a, 5),), (), (host(1, []),))
    assert ids(rebalance(view, RebalanceMemory(), RULES, NOW)) == set()


def test_an_engine_that_waits_for_its_host_comes_if_it_has_its_gpus() -> None:
    held = [*engines("a", 0), *engines("b", 4, 5, 6, 7)]
    late = EngineView("a-1", "a", "h", EngineState.PENDING, ("GPU-1",))
    memory = remembered([*held, late], a=HOT, b=BUSY)
    outcome = rebalance(scene(A, B, 2000, [*held, late]), memory, RULES, NOW)
    grown = next(each for each in outcome.reasons if "is hot" in each.what)
    assert grown.figures["n"] == "2"


def test_engines_that_somebody_else_runs_are_none_of_its_business() -> None:
    view = scene(replace(A, engine="external"), B, 2000, FULL)
    outcome = rebalance(view, RebalanceMemory(), RULES, NOW)
    assert {each.model for each in outcome.wanted} == {"b"}


def test_a_donor_that_gets_an_engine_itself_gives_none() -> None:
    flight = GpuMove(NOW - 10, "b-4", "b", "h", (), starts_at=NOW - 10)
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


def test_a_donor_whose_engine_never_came_gives_it_freely() -> None:
    lost = [replace(each, state=EngineState.FATAL) for each in engines("b", 4)]
    held = [*engines("a", 0, 1, 2, 3), *lost, *engines("c", 5, 6, 7)]
    memory = remembered(held, a=HOT, b=BUSY, c=BUSY)
    models = (
        ModelView(A, 2000),
        ModelView(model("b", 0, 3)),
        ModelView(model("c", 3, 3)),
    )
    view = RebalanceView(models, tuple(held), (host(8, held),))
    (flight,) = rebalance(view, memory, RULES, NOW).memory.moves
    assert flight.donors == ("b-0",)


def test_a_need_that_is_great_enough_turns_gpus_back_sooner() -> None:
    memory = replace(
        remembered(FULL, a=HOT, b=BUSY), past=(PastMove(NOW - 200, "a", "b"),)
    )
    assert rebalance(scene(A, B, 9000, FULL), memory, RULES, NOW).memory.moves


def test_only_those_end_that_make_room() -> None:
    """The engine of one GPU would end first; the one of two is enough by itself."""
    a, b, c = model("a", 1, 3, gpus=2), model("b", 0, 3), model("c", 0, 3, gpus=2)
    held = [
        EngineView("a-0", "a", "h", EngineState.READY, ("GPU-0", "GPU-1")),
        EngineView("b-0", "b", "h", EngineState.READY, ("GPU-2",)),
        EngineView("c-0", "c", "h", EngineState.READY, ("GPU-3", "GPU-4")),
    ]
    memory = remembered(held, a=HOT, b=KNOWN, c=KNOWN)
    # The three GPUs of another host only make the fleet large enough for a move of two.
    hosts = (
        host(5, held),
        Host("far", tuple(_taken(gpu) for gpu in processes.gpus(3))),
    )
    view = RebalanceView(
        (ModelView(a, 2000), ModelView(b), ModelView(c)), tuple(held), hosts
    )
    (flight,) = rebalance(view, memory, RULES, NOW).memory.moves
    assert flight.donors == ("c-0",)


def _taken(gpu: Gpu) -> Gpu:
    return replace(gpu, used=gpu.total, free=0)


def test_pinned_engines_count_and_are_not_wanted_a_second_time() -> None:
    view = replace(scene(A, B, 0, FULL), pins=(EngineSpec("a-0", "a", "h"),))
    memory = remembered(FULL, a=KNOWN, b=KNOWN)
    outcome = rebalance(view, memory, RULES, NOW)
    assert ids(outcome) == {each.id for each in FULL} - {"a-0"}


def test_a_move_to_another_host_takes_no_room_here() -> None:
    flight = GpuMove(NOW - 10, "b-4", "b", "far", ("GPU-9",), starts_at=NOW - 10)
    held = FULL[:-1]
    memory = remembered(held, a=HOT, b=BUSY)
    meters = dict(memory.meters)
    meters["b"] = replace(meters["b"], wanted=(*meters["b"].wanted, "b-4"))
    memory = replace(memory, meters=meters, moves=(flight,))
    outcome = rebalance(scene(A, B, 2000, held), memory, RULES, NOW)
    (new,) = [each for each in outcome.wanted if each.id == "a-4"]
    assert new.uuids == ("GPU-7",)


def test_without_hosts_nobody_is_asked_for_a_gpu_that_is_not_needed() -> None:
    a = model("a", 1, 7, gpus=0)
    held = [EngineView("a-0", "a", "", EngineState.READY)]
    memory = remembered(held, a=HOT)
    view = RebalanceView((ModelView(a, 2000),), tuple(held), ())
    outcome = rebalance(view, memory, RULES, NOW)
    assert outcome.memory.moves == ()
