"""How many engines are wanted, and how placement takes that."""

from dataclasses import replace
from typing import Any

from modelserver.inventory import Host
from modelserver.policy.actions import Drop, Want
from modelserver.policy.decide import consider
from modelserver.policy.placement.needs import Demand
from modelserver.policy.placement.planning import plan
from modelserver.policy.rebalance.state import GpuMove, Meter, RebalanceMemory
from modelserver.policy.replay import RulesOf
from modelserver.policy.snapshot import Snapshot
from modelserver.values import (
    EngineReport,
    EngineSpec,
    EngineState,
    Kind,
    ModelSpec,
    Wish,
)
from tests.support.processes import gpus

RULES = RulesOf(hang_seconds=60, relaunch_pause_seconds=10)
M = ModelSpec("m", Kind.COMPLETION, "/m", "sglang", gpus=1)
SLEEPY = replace(M, min_engines=0, idle_seconds=100.0)
HOST = Host("a", gpus(2))


def fleet(*specs: ModelSpec, host: Host = HOST, **values: Any) -> Snapshot:
    empty = Snapshot(specs, (), (host,), {}, {}, {}, moves=RebalanceMemory())
    return replace(empty, **values)


def spec(engine: str, *uuids: str, host: str = "a") -> EngineSpec:
    return EngineSpec(engine, engine.rpartition("-")[0], host, uuids=uuids)


def serving(*specs: EngineSpec) -> dict[str, Any]:
    return {
        "wishes": {each.id: Wish(each) for each in specs},
        "engines": {
            each.id: EngineReport(
                each.id, each.model, each.host, EngineState.READY, 1, alive_at=100.0
            )
            for each in specs
        },
    }


def test_a_model_without_a_minimum_has_no_engine_until_it_is_asked_for():
    asleep = consider(fleet(SLEEPY), RULES, 10.0)
    assert asleep.actions == ()
    asked = fleet(SLEEPY, queues={"m": 1}, moves=asleep.scaling.memory)
    awake = consider(asked, RULES, 12.0)
    assert awake.actions == (Want(spec("m-0", "GPU-0")),)
    assert "m is asked for and has no engine" in str(awake.scaling.reasons[0])


def test_an_idle_engine_above_the_minimum_is_dropped():
    quiet = RebalanceMemory(0.0, {"m": Meter(("m-0",), quiet_since=0.0)})
    present = fleet(SLEEPY, moves=quiet, **serving(spec("m-0", "GPU-0")))
    assert consider(present, RULES, 99.0).actions == ()
    assert consider(present, RULES, 101.0).actions == (
        Drop("m-0", "model m wants fewer engines"),
    )


def test_without_a_memory_the_minimum_runs():
    (want,) = consider(fleet(M, moves=None), RULES, 0.0).actions
    assert want == Want(spec("m-0", "GPU-0"))


def test_what_runs_goes_on_where_it_is_when_nothing_is_remembered():
    there = serving(spec("m-4", "GPU-1"))
    there["engines"]["m-4"] = replace(there["engines"]["m-4"], gpus=(1,))
    present = fleet(M, **there | {"wishes": {}})
    assert consider(present, RULES, 0.0).actions == (Want(spec("m-4", "GPU-1")),)


def test_an_engine_whose_wish_was_lost_stays_where_it_runs():
    there = serving(spec("m-0", "GPU-1"))
    there["engines"]["m-0"] = replace(there["engines"]["m-0"], gpus=(1,))
    known = RebalanceMemory(0.0, {"m": Meter(("m-0",))})
    present = fleet(M, moves=known, **there | {"wishes": {}})
    assert consider(present, RULES, 5.0).actions == (Want(spec("m-0", "GPU-1")),)


def test_what_drains_or_is_on_a_dead_host_is_not_taken_for_an_engine_to_have():
    draining = EngineReport("m-4", "m", "a", EngineState.DRAINING, 1)
    gone = EngineReport("m-5", "m", "dead", EngineState.READY, 1)
    present = fleet(M, engines={"m-4": draining, "m-5": gone})
    (want,) = consider(present, RULES, 0.0).actions
    assert isinstance(want, Want)
    assert want.spec.id == "m-0"


def test_exactly_what_is_demanded_is_wanted_and_pins_beside_it():
    pin = EngineSpec("n-0", "n", "a")
    models = (replace(M, min_engines=2), replace(M, name="n", gpus=0))
    demand = Demand((EngineSpec("m-7", "m", ""),))
    found = plan(fleet(*models, pins=(pin,)), demand)
    assert [each.spec.id for each in found.actions] == ["n-0", "m-7"]  # type: ignore[union-attr]


def test_an_engine_goes_to_the_gpus_that_a_move_found_for_it():
    demand = Demand((spec("m-3", "GPU-1"),))
    assert plan(fleet(M), demand).actions == (Want(spec("m-3", "GPU-1")),)


def test_an_engine_whose_place_has_been_taken_goes_elsewhere():
    taken = replace(HOST, gpus=(HOST.gpus[0], replace(HOST.gpus[1], fault="lost")))
    found = plan(fleet(M, host=taken), Demand((spec("m-3", "GPU-1"),)))
    assert found.actions == (Want(spec("m-3", "GPU-0")),)
    elsewhere = Demand((spec("m-3", "GPU-1", host="b"),))
    assert plan(fleet(M), elsewhere).actions == (Want(spec("m-3", "GPU-0")),)


def test_nothing_is_placed_on_gpus_that_a_move_waits_for():
    promised = spec("n-0", "GPU-0")
    demand = Demand((EngineSpec("m-0", "m", ""),), {"GPU-0": promised})
    n = replace(M, name="n")
    assert plan(fleet(M, n), demand).actions == (Want(spec("m-0", "GPU-1")),)
    elsewhere = replace(promised, host="b")
    demand = replace(demand, reserved={"GPU-0": elsewhere})
    assert plan(fleet(M, n), demand).actions == (Want(spec("m-0", "GPU-0")),)


def test_a_move_reserves_gpus_until_its_donor_has_ended():
    n = replace(M, name="n", min_engines=0)
    meters = {"m": Meter(("m-0", "m-1")), "n": Meter()}
    move = GpuMove(0.0, "n-0", "n", "a", ("GPU-1",), ("n-9",), ("n",), 1)
    there = serving(spec("m-0", "GPU-0")) | {"queues": {"n": 9}}
    leaving = EngineReport("n-9", "n", "a", EngineState.DRAINING, 1, gpus=(1,))
    there["engines"]["n-9"] = leaving
    present = fleet(
        replace(M, min_engines=2, max_engines=2),
        n,
        moves=RebalanceMemory(0.0, meters, {}, (move,)),
        **there,
    )
    waits = consider(present, RULES, 5.0)
    assert waits.actions == ()
    assert set(waits.waiting) == {"m-1"}
    over = replace(present, engines=serving(spec("m-0", "GPU-0"))["engines"])
    assert consider(over, RULES, 6.0).actions == (Want(spec("n-0", "GPU-1")),)
