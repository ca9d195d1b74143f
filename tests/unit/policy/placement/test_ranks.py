"""Who is placed first where GPUs are short."""

from dataclasses import replace

from modelserver.policy.placement.needs import Demand, turns
from modelserver.policy.placement.planning import plan
from modelserver.values import EngineSpec
from tests.support.placement import fleet, gpus_of, host, model, waiting

LOW, HIGH = model("a", engines=2), replace(model("z", engines=2), priority=1)


def test_the_minimum_of_a_higher_rank_comes_first():
    snapshot = fleet(LOW, HIGH, hosts=[host("h", 0, 0, 0)])
    assert set(gpus_of(snapshot)) == {"z-0", "z-1", "a-0"}
    assert set(waiting(snapshot)) == {"a-1"}


def test_everybodys_minimum_comes_before_more_of_a_high_rank():
    wanted = [EngineSpec(f"{name}-{n}", name, "") for name in "az" for n in range(3)]
    demand = Demand(tuple(wanted), minimums={"z": 1, "a": 2})
    low = replace(LOW, min_engines=1)
    snapshot = fleet(low, replace(HIGH, min_engines=1), hosts=[host("h", 0, 0, 0, 0)])
    placed = {each.spec.id for each in plan(snapshot, demand).actions}
    assert placed == {"z-0", "a-0", "a-1", "z-1"}


def test_rank_goes_before_size_and_without_ranks_size_decides():
    big = model("big", gpus=2, engines=1)
    snapshot = fleet(big, LOW, hosts=[host("h", 0, 0)])
    assert set(gpus_of(snapshot)) == {"big-0"}
    ranked = fleet(big, HIGH, hosts=[host("h", 0, 0)])
    assert set(gpus_of(ranked)) == {"z-0", "z-1"}


def test_models_alike_have_an_engine_each_before_one_has_two():
    a, b = (model(name, engines=3) for name in "ab")
    short = [host("h", 0, 0, 0)]
    assert set(gpus_of(fleet(a, b, hosts=short))) == {"a-0", "b-0", "a-1"}
    # Also where both go before a third one.
    high = [replace(each, priority=1) for each in (a, b)]
    third = model("c", engines=3)
    assert set(gpus_of(fleet(third, *high, hosts=short))) == {"a-0", "b-0", "a-1"}


def test_an_engine_of_no_model_has_the_rank_of_none():
    specs = {"a": LOW, "z": HIGH}
    found = turns(
        [EngineSpec("old-0", "old", ""), EngineSpec("z-0", "z", "")], specs, {}
    )
    assert found == {"old-0": (True, 0), "z-0": (False, -1)}
