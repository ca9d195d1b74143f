"""How many requests an engine gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from modelserver.measured import Metrics
from modelserver.policy.health.limits import Flow, next_limit, with_capacities
from modelserver.values import EngineReport, EngineState, Kind, ModelSpec

#: Seconds between two tokens that are aimed at.
TARGET = 0.080


def after(limit: float, inflight: int, fails: bool = False, **metrics) -> float:
    flow = Flow(Metrics(**{"itl_seconds": 0.02} | metrics), inflight, fails)
    return next_limit(limit, flow, 64, TARGET)


@pytest.mark.parametrize("metrics", [{"waiting": 4}, {"itl_seconds": 0.0881}])
def test_an_engine_with_too_much_gets_a_tenth_less(metrics):
    assert after(32.0, 32, **metrics) == pytest.approx(28.8)


@pytest.mark.parametrize("metrics", [{"waiting": 3}, {"kv_use": 1.0}])
def test_just_enough_is_not_too_much(metrics):
    assert after(32.0, 10, **metrics) == 32.0


def test_one_may_wait_however_low_the_limit():
    assert after(4.0, 4, waiting=1) == 4.0


def test_load_alone_leaves_two():
    assert after(2.0, 2, waiting=5) == 2.0


def test_a_full_engine_with_room_gets_half_a_square_root_more():
    assert after(36.0, 29) == 39.0
    assert after(2.0, 2) == 3.0


@pytest.mark.parametrize(
    "metrics", [{"waiting": 1}, {"kv_use": 0.95}, {"itl_seconds": 0.076}]
)
def test_without_room_it_holds(metrics):
    assert after(36.0, 36, **metrics) == 36.0


def test_an_engine_that_is_not_used_holds():
    assert after(36.0, 28) == 36.0


def test_an_engine_that_fails_more_than_others_gets_three_tenths_less():
    assert after(40.0, 40, fails=True) == 28.0


def test_failures_alone_leave_a_quarter_of_the_most():
    assert after(17.0, 17, fails=True) == 16.0
    assert after(10.0, 10, fails=True) == 10.0


def test_an_engine_that_fails_and_has_too_much_gets_less_for_both():
    assert after(40.0, 40, fails=True, waiting=9) == pytest.approx(25.2)


def test_the_time_between_tokens_is_weighed_by_the_one_aimed_at():
    flow = Flow(Metrics(itl_seconds=0.034), 32)
    assert next_limit(32.0, flow, 64, target_seconds=0.030) == pytest.approx(28.8)


def test_without_a_target_no_pace_lowers_a_limit_nor_keeps_it_from_growing():
    slow = Flow(Metrics(itl_seconds=3.0), inflight=64)
    assert next_limit(64.0, slow, 64) == 64.0
    assert next_limit(36.0, slow, 64) == 39.0


def test_slow_tokens_alone_leave_a_quarter_of_the_most():
    limit = 64.0
    for _ in range(100):
        limit = after(limit, 64, itl_seconds=3.0)
    assert limit == 16.0
    assert after(10.0, 10, itl_seconds=3.0) == 10.0
    assert after(16.0, 16, itl_seconds=3.0, waiting=9) == pytest.approx(14.4)


def test_a_model_that_leaves_it_to_its_engines_has_what_the_largest_takes():
    def model(name: str, most: int) -> ModelSpec:
        return ModelSpec(name, Kind.COMPLETION, "/m", "sglang", max_running=most)

    reports = [
        EngineReport(f"own-{place}", "own", "a", EngineState.READY, capacity=capacity)
        for place, capacity in enumerate((300, 700, 0))
    ]
    specs = (model("own", 0), model("told", 32), model("unknown", 0))
    found = with_capacities(specs, reports)
    assert [each.max_running for each in found] == [700, 32, 64]


@given(
    limit=some.floats(1, 64),
    inflight=some.integers(0, 64),
    waiting=some.integers(0, 64),
    kv=some.floats(0, 1),
    itl=some.floats(0, 1),
    fails=some.booleans(),
    most=some.integers(1, 64),
)
def test_it_stays_between_one_and_what_the_engine_runs(
    limit, inflight, waiting, kv, itl, fails, most
):
    flow = Flow(Metrics(waiting, kv, itl), inflight, fails)
    new = next_limit(min(limit, most), flow, most, TARGET)
    assert 1.0 <= new <= most
