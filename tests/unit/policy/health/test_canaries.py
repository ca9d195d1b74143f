"""What canaries tell of an engine."""

import pytest

from modelserver.measured import Canary
from modelserver.policy.health.canaries import find_slow_canary
from modelserver.policy.health.verdicts import SlowCanary
from modelserver.values import EngineReport, EngineState
from tests.support.control import NOW

ENGINE = EngineReport("m-0", "m", "a", EngineState.READY, 1)


def slow_canary(*seconds: float, baseline: float = 0.2, age: float = 5.0, loaded=False):
    made = [Canary("m-0", 1, NOW - age, each, loaded) for each in seconds]
    return find_slow_canary(ENGINE, made, baseline, NOW)


def test_two_of_three_slow_canaries_tell():
    verdict = slow_canary(0.31, 0.2, 0.4)
    assert verdict
    assert verdict.text == (
        "slow canary: 0.31, 0.20, 0.40 s while idle; 0.20 s is normal"
    )
    assert verdict.ratio == pytest.approx(1.55)


def test_one_slow_canary_or_an_older_one_tells_nothing():
    assert slow_canary(0.3, 0.2, 0.2, 0.4, 0.4) is None
    assert slow_canary(0.3, 0.29, 0.2) is None
    assert slow_canary(0.4, 0.4, 0.4, age=601.0) is None


def test_loaded_canaries_and_a_missing_baseline_tell_nothing():
    assert slow_canary(0.4, 0.4, 0.4, loaded=True) is None
    assert slow_canary(0.4, 0.4, 0.4, baseline=0.0) is None


def canary_with_wander(times: float, wander: float) -> SlowCanary | None:
    made = [Canary("m-0", 1, NOW, 0.25 * times)] * 3
    return find_slow_canary(ENGINE, made, 0.25, NOW, wander)


def test_a_canary_of_an_engine_that_wanders_may_take_longer():
    assert canary_with_wander(1.6, wander=0.03)
    assert canary_with_wander(1.6, wander=0.15) is None
    assert canary_with_wander(2.3, wander=0.5)
