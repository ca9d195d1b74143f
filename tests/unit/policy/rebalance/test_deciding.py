"""When GPUs move from one model to another, and when engines sleep and wake."""

import json
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from modelserver.policy.rebalance.deciding import rebalance
from modelserver.policy.rebalance.pressure import Pressure
from modelserver.policy.rebalance.state import (
    EngineView,
    ModelView,
    RebalanceMemory,
    RebalanceOutcome,
    RebalanceView,
    from_json,
    to_json,
)
from modelserver.values import EngineState, ModelSpec
from tests.scenarios.moves_world import model
from tests.support.rebalance import (
    BUSY,
    FULL,
    HOT,
    KNOWN,
    NOW,
    READY,
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


def test_the_figures_of_a_queue() -> None:
    found = Pressure(queue=1200, arrivals=6, capacity=2, engines=4)
    assert (found.work_seconds, found.drain_seconds) == (150, 600)
    # 100 s at a deficit of -2/s leave 1000, then 4/s: 100 + 250 s instead of 600.
    assert found.gain_seconds(100) == 250
    assert replace(found, arrivals=9).drain_seconds == 3600


def test_a_donor_ends_before_the_new_engine_starts() -> None:
    outcome = move()
    assert ids(outcome) == {"a-0", "a-1", "a-2", "a-3", "b-0", "b-1", "b-2"}
    (flight,) = outcome.memory.moves
    assert (flight.donors, flight.engine, flight.starts_at) == (("b-3",), "a-4", None)
    assert {u: e.id for u, e in outcome.reserved.items()} == {"GPU-7": "a-4"}


def test_the_new_engine_gets_the_donors_gpus_when_they_are_free() -> None:
    memory = move().memory
    ending = [*FULL[:-1], replace(FULL[-1], state=EngineState.DRAINING)]
    waits = rebalance(scene(A, B, 2000, ending), memory, RULES, NOW + 10)
    assert "a-4" not in ids(waits)
    gone = rebalance(scene(A, B, 2000, FULL[:-1]), waits.memory, RULES, NOW + 20)
    (new,) = [each for each in gone.wanted if each.id == "a-4"]
    assert (new.host, new.uuids) == ("h", ("GPU-7",))


def test_a_queue_that_is_gone_needs_no_engine_any_more() -> None:
    memory = move().memory
    outcome = rebalance(scene(A, B, 0, FULL[:-1]), memory, RULES, NOW + 20)
    assert "a-4" not in ids(outcome)
    assert outcome.memory.moves == ()


def test_free_gpus_come_before_donors() -> None:
    held = FULL[:-1]
    memory = remembered(held, a=HOT, b=BUSY)
    outcome = rebalance(scene(A, B, 2000, held), memory, RULES, NOW)
    assert "a-4" in ids(outcome)
    assert {"b-0", "b-1", "b-2"} <= ids(outcome)


def test_two_ticks_are_not_enough() -> None:
    memory = remembered(FULL, a=replace(HOT, hot_ticks=1), b=BUSY)
    outcome = rebalance(scene(A, B, 2000, FULL), memory, RULES, NOW)
    assert outcome.memory.moves == ()
    assert outcome.memory.meters["a"].hot_ticks == 2


def test_a_donor_keeps_what_it_needs_and_the_reason_has_the_figures() -> None:
    memory = remembered(FULL, a=HOT, b=replace(BUSY, arrivals=6.0, recent=6.0))
    outcome = rebalance(scene(A, B, 2000, FULL), memory, RULES, NOW)
    assert outcome.memory.moves == ()
    (reason,) = outcome.reasons
    assert "b needs what it has: lambda " in str(reason)
    assert reason.figures["Q"] == 2000


def test_a_donor_keeps_its_min_engines() -> None:
    memory = remembered(FULL, a=HOT, b=BUSY)
    b = replace(B, min_engines=4)
    outcome = rebalance(scene(A, b, 2000, FULL), memory, RULES, NOW)
    assert outcome.memory.moves == ()


def test_a_model_whose_engines_die_gets_no_more() -> None:
    dead = [*engines("a", 0, 1, state=EngineState.FATAL), *engines("b", 4, 5, 6, 7)]
    memory = remembered(dead, a=HOT, b=BUSY)
    outcome = rebalance(scene(A, B, 2000, dead), memory, RULES, NOW)
    assert outcome.memory.moves == ()


def test_an_idle_model_falls_asleep_down_to_its_min_engines() -> None:
    quiet = replace(KNOWN, quiet_since=NOW - 901)
    memory = remembered(FULL, a=quiet, b=quiet)
    a = replace(A, min_engines=0)
    assert ids(rebalance(scene(a, B, 0, FULL), memory, RULES, NOW)) == {"b-0"}


def test_one_request_wakes_a_model_that_sleeps() -> None:
    held = engines("b", 4, 5)
    memory = remembered(held, a=KNOWN, b=BUSY)
    a = replace(A, min_engines=0)
    view = scene(a, B, 1, held)
    assert ids(rebalance(view, memory, RULES, NOW - 28)) == {"a-0", "b-0", "b-1"}


def test_without_a_free_gpu_an_idle_donor_wakes_it() -> None:
    held = engines("b", 0, 1)
    a = replace(A, min_engines=0)
    idle = rebalance(
        scene(a, B, 1, held, gpus=2), remembered(held, a=KNOWN, b=KNOWN), RULES, NOW
    )
    assert idle.memory.moves[0].donors == ("b-1",)
    busy = rebalance(
        scene(a, B, 1, held, gpus=2), remembered(held, a=KNOWN, b=BUSY), RULES, NOW
    )
    assert busy.memory.moves == ()


def test_memory_that_was_lost_is_taken_from_what_runs() -> None:
    outcome = rebalance(scene(A, B, 0, FULL), RebalanceMemory(), RULES, NOW)
    assert ids(outcome) == {each.id for each in FULL}


def test_memory_goes_through_json_and_back() -> None:
    memory = move().memory
    assert from_json(json.loads(json.dumps(to_json(memory)))) == memory


# Whatever the fleet.


@st.composite
def runs(draw: st.DrawFn) -> tuple[ModelSpec, ModelSpec, list[tuple[int, int]]]:
    specs = []
    for name in "ab":
        least = draw(st.integers(0, 2))
        most = draw(st.integers(max(1, least), 6))
        specs.append(model(name, least, most, gpus=draw(st.sampled_from([1, 1, 2]))))
    queue = st.sampled_from([0, 0, 1, 300, 5000])
    looks = draw(st.lists(st.tuples(queue, queue), min_size=10, max_size=40))
    return specs[0], specs[1], looks


@settings(max_examples=60, deadline=None)
@given(runs())
def test_limits_memory_and_order_hold_whatever_happens(
    run: tuple[ModelSpec, ModelSpec, list[tuple[int, int]]],
) -> None:
    """Engines start at once where the rules say, and take two looks to drain."""
    *specs, looks = run
    running: dict[str, EngineView] = {}
    ending: dict[str, int] = {}
    memory, total = RebalanceMemory(), 8
    for number, queues in enumerate(looks):
        at = NOW + 30 * number
        held = list(running.values())
        models = tuple(
            ModelView(spec, queue, load_seconds=30)
            for spec, queue in zip(specs, queues, strict=True)
        )
        view = RebalanceView(models, tuple(held), (host(total, held),))
        outcome = rebalance(view, memory, RULES, at)
        assert rebalance(view, memory, RULES, at) == outcome
        memory = from_json(json.loads(json.dumps(to_json(outcome.memory))))
        assert memory == outcome.memory
        wanted = {each.id: each for each in outcome.wanted}
        for spec in specs:
            count = sum(each.model == spec.name for each in outcome.wanted)
            assert spec.min_engines <= count <= spec.max_engines
        _check_moves(outcome, specs, running)
        for engine in list(running):
            if engine in wanted:
                continue
            draining = replace(running[engine], state=EngineState.DRAINING)
            ending[engine] = ending.get(engine, 0) + 1
            running[engine] = draining
            if ending[engine] > 2:
                del running[engine], ending[engine]
        for want in wanted.values():
            if want.id not in running and want.uuids:
                taken = {uuid for each in running.values() for uuid in each.uuids}
                assert not taken & set(want.uuids), "released before acquired"
                running[want.id] = EngineView(
                    want.id, want.model, want.host, READY, want.uuids
                )


def _check_moves(
    outcome: RebalanceOutcome, specs: list[ModelSpec], running: dict[str, EngineView]
) -> None:
    given = [flight for flight in outcome.memory.moves if flight.donors]
    # One that wakes a sleeping model with idle GPUs may be larger, then it is alone.
    assert sum(flight.gpus for flight in given) <= 2 or len(given) == 1
    needs = {spec.name: spec.gpus for spec in specs}
    for flight in outcome.memory.moves:
        assert len(flight.uuids) == needs[flight.model]
        wanted = any(each.id == flight.engine for each in outcome.wanted)
        held = any(donor in running for donor in flight.donors)
        if flight.starts_at is None and held:
            assert not wanted or flight.engine in running
