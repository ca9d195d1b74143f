"""How many requests an engine gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from modelserver.policy.health.limits import (
    THROUGHPUT_SECONDS,
    Flow,
    next_limit,
    target_seconds,
)
from modelserver.values import Metrics

QUIET = Metrics(itl_seconds=0.02)


def after(limit: float, inflight: int, fails: bool = False, **metrics) -> float:
    flow = Flow(Metrics(**{"itl_seconds": 0.02} | metrics), inflight, fails)
    return next_limit(limit, flow, 64, THROUGHPUT_SECONDS)


@pytest.mark.parametrize(
    "metrics", [{"waiting": 4}, {"kv_use": 0.96}, {"itl_seconds": 0.0881}]
)
def test_an_engine_with_too_much_gets_a_tenth_less(metrics):
    assert after(32.0, 32, **metrics) == pytest.approx(28.8)


@pytest.mark.parametrize("metrics", [{"waiting": 3}, {"kv_use": 0.95}])
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
    "metrics", [{"waiting": 1}, {"kv_use": 0.85}, {"itl_seconds": 0.076}]
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


@pytest.mark.parametrize(
    ("canary", "target"), [(0.64, 0.080), (8.0, 0.75), (0.0, float("inf"))]
)
def test_the_pace_aimed_at_is_three_times_the_empty_engines(canary, target):
    assert target_seconds(canary) == target


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
    new = next_limit(min(limit, most), flow, most, THROUGHPUT_SECONDS)
    assert 1.0 <= new <= most
