"""Queues and rates in work: what requests weigh, and what changes when that does."""

from dataclasses import replace

import pytest

from modelserver.policy.rebalance.demand import FEWEST_REQUESTS, request_work
from modelserver.policy.rebalance.measuring import Tick, measure
from modelserver.policy.rebalance.state import (
    EngineView,
    Meter,
    ModelView,
    RebalanceRules,
)
from modelserver.policy.snapshot import Snapshot
from modelserver.values import EngineState, Kind, ModelSpec, Outcome
from tests.support.control import NOW, Scene, sample

RULES = RebalanceRules()
SPEC = ModelSpec("m", Kind.COMPLETION, "/m", "sglang", max_running=8)
ENGINES = (EngineView("m-0", "m", "h", EngineState.READY, inflight=8),)


def tick(finished: float, work: float | None, waiting: int = 100) -> Tick:
    """Half a minute in which a full engine answered so many requests."""
    return Tick(ModelView(SPEC, waiting, work), ENGINES, 8, finished, 30.0)


def saturated(looks: int = 60, work: float | None = 10.0) -> Meter:
    """After half an hour: two requests a second, of ten tokens."""
    meter = Meter()
    for _ in range(looks):
        meter = measure(meter, tick(60.0, work), RULES)
    return meter


def snapshot(*sizes: tuple[int, int], **more: object) -> Snapshot:
    """One engine whose last requests had so many prompt and completion tokens."""
    scene = Scene(1)
    scene.samples["m-0"] = tuple(
        replace(sample(**more), prompt_tokens=prompt, completion_tokens=completion)  # type: ignore[arg-type]
        for prompt, completion in sizes
    )
    return scene.snapshot()


def test_a_prompt_token_weighs_a_fifth_of_a_completion_token():
    assert request_work(snapshot(*[(100, 30)] * 20), "m", NOW) == pytest.approx(50.0)


def test_what_a_request_weighs_is_the_mean_of_all():
    made = [(0, 10)] * 15 + [(0, 170)] * 5
    assert request_work(snapshot(*made), "m", NOW) == pytest.approx(50.0)


@pytest.mark.parametrize(
    "told",
    [
        snapshot(*[(100, 30)] * (FEWEST_REQUESTS - 1)),  # too few
        snapshot(*[(100, 30)] * 20, age=301.0),  # too old
        snapshot(*[(100, 30)] * 20, outcome=Outcome.ENGINE_FAULT),  # not answered
        snapshot(*[(0, 0)] * 20),  # engines that report no tokens
    ],
)
def test_where_nothing_tells_what_requests_weigh_nobody_knows(told: Snapshot):
    assert request_work(told, "m", NOW) is None


def test_another_models_requests_do_not_count():
    assert request_work(snapshot(*[(100, 30)] * 20), "other", NOW) is None


def test_rates_are_in_work():
    meter = saturated()
    assert meter.capacity == pytest.approx(20.0)
    assert meter.arrivals == pytest.approx(20.0, rel=0.05)


def test_without_sizes_requests_are_counted():
    meter = saturated(work=None)
    assert meter.request_work is None
    assert meter.capacity == pytest.approx(2.0)


def test_longer_requests_change_what_waits_and_not_what_an_engine_can_do():
    meter = saturated()
    for _ in range(10):
        meter = measure(meter, tick(3.0, 200.0), RULES)
    assert meter.request_work == pytest.approx(200.0, rel=0.05)
    assert meter.capacity == pytest.approx(20.0, rel=0.1)


def test_longer_requests_in_an_unchanged_queue_are_no_arrivals():
    meter = replace(saturated(), arrivals=0.0, recent=0.0)
    grown = measure(meter, tick(0.0, 200.0), RULES)
    assert grown.arrivals == 0.0


def test_what_was_counted_is_weighed_once_sizes_are_known():
    counted = replace(saturated(work=None), guess=1.5)
    weighed = measure(counted, replace(tick(60.0, 10.0), seconds=0.0), RULES)
    assert weighed.request_work == 10.0
    assert weighed.capacity == pytest.approx(20.0)
    assert weighed.guess == pytest.approx(15.0)
    assert weighed.arrivals == pytest.approx(10 * counted.arrivals)


def test_where_sizes_are_not_known_for_a_while_the_last_ones_stand():
    meter = saturated()
    later = measure(meter, tick(60.0, None), RULES)
    assert later.request_work == 10.0
    assert later.capacity == pytest.approx(20.0)
