"""How moves go on: donors that do not end, GPUs that are gone, engines that fail."""

from dataclasses import replace

from modelserver.inventory import Host
from modelserver.policy.rebalance.deciding import rebalance
from modelserver.policy.rebalance.state import EngineView, RebalanceOutcome
from modelserver.values import EngineState
from tests.support.rebalance import (
    FULL,
    NOW,
    RULES,
    A,
    B,
    host,
    ids,
    move,
    said,
    scene,
)


def moving(outcome: RebalanceOutcome) -> bool:
    return any(each.engine == "a-4" for each in outcome.memory.moves)


def started(state: EngineState, after: float) -> RebalanceOutcome:
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
    (new,) = [each for each in outcome.wanted if each.id == "a-4"]
    assert new.uuids == ("GPU-6",)


def test_gpus_that_do_not_get_free_end_the_move() -> None:
    memory = move().memory
    stranger = EngineView("c-0", "c", "h", EngineState.READY, ("GPU-7",))
    view = scene(A, B, 2000, [*FULL[:-1], stranger])
    assert rebalance(view, memory, RULES, NOW + 20).memory.moves
    over = rebalance(view, memory, RULES, NOW + 400)
    assert "its GPUs did not become free" in said(over)


def test_gpus_of_another_host_do_where_the_first_is_gone() -> None:
    memory = move().memory
    view = scene(A, B, 2000, FULL[:-1])
    other = Host("other", host(1, []).gpus)
    moved = replace(view, hosts=(other,))
    outcome = rebalance(moved, memory, RULES, NOW + 20)
    (new,) = [each for each in outcome.wanted if each.id == "a-4"]
    assert new.host == "other"


def test_an_engine_that_is_wanted_again_meanwhile_still_moves() -> None:
    begun = move().memory
    meters = {**begun.meters, "a": replace(begun.meters["a"], wanted=("a-4",))}
    memory = replace(begun, meters=meters)
    outcome = rebalance(scene(A, B, 0, FULL[:-1]), memory, RULES, NOW + 20)
    assert "a-4" in ids(outcome)
    assert moving(outcome)
