"""Slow, sick or merely busy: what is said of an engine, and from what."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as some

from modelserver.policy.health import detectors
from modelserver.policy.health.verdicts import SlowCanary, SpeedResidual
from modelserver.values import (
    Canary,
    EngineLoad,
    EngineReport,
    EngineState,
    Metrics,
    Outcome,
)
from tests.support.control import FIT, NOW, sample, samples

ENGINE = EngineReport("m-0", "m", "a", EngineState.READY, 1)
WELL = SpeedResidual(0.0, 0.01, 40)
LN2 = math.log(2)


def speed(made, offset: float = 0.0) -> SpeedResidual | None:
    return detectors.find_speed(made, FIT, offset, 32, NOW)


def slow(own: SpeedResidual | None, *peers: SpeedResidual):
    speeds = {f"m-{place}": peer for place, peer in enumerate(peers, 1)}
    if own:
        speeds["m-0"] = own
    return detectors.find_slow(ENGINE, speeds, list(speeds))


# Speed


def test_an_engines_speed_is_the_median_of_its_last_forty_requests():
    made = (*samples(number=40, seconds=2.0), *samples(number=20, seconds=9.0))
    found = speed(made)
    assert found
    assert found.residual == pytest.approx(LN2)
    assert found.requests == 40
    assert found.error == pytest.approx(1.2533 * 0.05 / math.sqrt(40))


def test_its_own_level_is_taken_off():
    found = speed(samples(seconds=2.0), offset=LN2)
    assert found
    assert found.residual == pytest.approx(0.0)


def test_with_few_of_late_twelve_of_ten_minutes_count():
    made = [sample(age=50.0 * place, seconds=2.0) for place in range(13)]
    found = speed(made)
    assert found
    assert found.requests == 12


def test_seven_requests_say_nothing():
    assert speed(samples(number=7)) is None
    assert speed([sample(age=601.0)] * 20) is None


def test_failed_requests_have_no_speed():
    assert speed(samples(outcome=Outcome.ENGINE_FAULT)) is None


def test_scatter_beyond_the_fits_makes_less_certain():
    made = [sample(seconds=1.0 + place % 3) for place in range(40)]
    found = speed(made)
    assert found
    assert found.error > 1.2533 * 0.05 / math.sqrt(40)


# Slow


def test_an_engine_slower_than_its_peers_is_slow_and_says_why():
    verdict = slow(SpeedResidual(LN2, 0.02, 40), WELL, WELL)
    assert verdict
    assert verdict.text == (
        "slow: takes 2.00x of what its requests explain (its 2 peers 1.00x; "
        "40 requests, standard error 2 %)"
    )


@pytest.mark.parametrize(
    ("own", "peers"),
    [
        (SpeedResidual(math.log(1.39), 0.001, 40), 0.0),  # not enough beyond its peers
        (SpeedResidual(math.log(1.24), 0.001, 40), -0.5),  # hardly slow at all
        (SpeedResidual(LN2, 0.2, 8), 0.0),  # not certain
        (SpeedResidual(LN2, 0.02, 40), LN2),  # no slower than they are
    ],
)
def test_it_takes_all_three_to_be_slow(own: SpeedResidual, peers: float):
    assert (
        slow(own, SpeedResidual(peers, 0.01, 40), SpeedResidual(peers, 0.01, 40))
        is None
    )


def test_alone_it_has_to_be_slower_and_says_so():
    assert slow(SpeedResidual(math.log(1.79), 0.01, 40)) is None
    assert slow(SpeedResidual(LN2, 0.2, 40)) is None
    verdict = slow(SpeedResidual(LN2, 0.02, 40))
    assert verdict
    assert "(no peers;" in verdict.text


def test_an_engine_of_unknown_speed_is_not_slow():
    assert slow(None, WELL) is None


def test_suspected_engines_are_no_peers():
    speeds = {"m-0": SpeedResidual(LN2, 0.02, 40), "m-1": WELL}
    verdict = detectors.find_slow(ENGINE, speeds, ["m-0"])
    assert verdict
    assert verdict.peers == 0


# Slow together


def test_all_slow_together_are_not_to_blame():
    verdict = detectors.find_slow_together("m", [SpeedResidual(LN2, 0.1, 40)] * 3)
    assert verdict
    assert verdict.text == (
        "3 engines of m together take 2.00x of what their requests explain: "
        "it is the load or the hosts, so none is relaunched"
    )


@pytest.mark.parametrize(
    "residuals", [[LN2], [LN2, 0.0], [LN2, LN2, 0.0, 0.0], [0.3, 0.3, 0.3]]
)
def test_it_takes_most_of_them_to_be_slow_together(residuals):
    assert (
        detectors.find_slow_together(
            "m", [SpeedResidual(each, 0.1, 40) for each in residuals]
        )
        is None
    )


# Errors


def test_an_engine_that_fails_more_than_others_is_told():
    verdict = detectors.find_errors("m-0", 1, (20, 50), (1, 100))
    assert verdict
    assert verdict.text == (
        "errors: 20 of 50 requests failed, surely more than 24 %; allowed are 5 %"
    )


@pytest.mark.parametrize(
    ("own", "peers"),
    [((9, 9), (0, 100)), ((3, 30), (0, 100)), ((20, 50), (10, 100)), ((0, 60), (0, 0))],
)
def test_few_requests_little_share_or_failing_peers_are_no_error(own, peers):
    assert detectors.find_errors("m-0", 1, own, peers) is None


def test_only_the_engines_own_faults_count():
    made = [
        sample(outcome=Outcome.OK),
        sample(outcome=Outcome.ENGINE_FAULT),
        sample(outcome=Outcome.REQUEST_FAULT),
        sample(outcome=Outcome.CANCELLED),
        sample(outcome=Outcome.ENGINE_FAULT, age=61.0),
    ]
    assert detectors.count_failures(made, NOW) == (1, 3)


@given(some.integers(1, 500), some.data())
def test_wilsons_bound_is_below_the_share(trials: int, data):
    hits = data.draw(some.integers(0, trials))
    assert -1e-9 <= detectors.wilson_bound(hits, trials) <= hits / trials + 1e-9


# Hang


def hang(load, metrics=None, made=(), fit=FIT):
    return detectors.find_hang(ENGINE, load, metrics, made, fit, NOW)


def test_an_engine_without_requests_does_not_hang():
    assert hang(None) is None
    assert hang(EngineLoad(0, 0.0, 999.0)) is None


def test_with_a_token_counter_half_a_minute_is_enough():
    verdict = hang(EngineLoad(3, 80.0, 1.0), Metrics(tokens_at=NOW - 31))
    assert verdict
    assert verdict.text == (
        "hung: no token for 31 s with 3 in flight; 30 s can be explained"
    )
    assert hang(EngineLoad(3, 80.0, 80.0), Metrics(tokens_at=NOW - 30)) is None


def test_a_long_prefill_explains_silence():
    fit = type(FIT)((0.0, 0.1, 0.01, 0.0, 0.1), 0.05, 1000)
    metrics = Metrics(tokens_at=NOW - 50)
    # A hundred prompt tokens at 0.2 s each are 20 s, and thrice that is allowed.
    assert hang(EngineLoad(3, 80.0, 80.0), metrics, samples(), fit) is None
    assert hang(EngineLoad(3, 80.0, 80.0), metrics, samples(), None)


def test_silence_from_before_its_oldest_request_does_not_count():
    assert hang(EngineLoad(1, 5.0, 500.0), Metrics(tokens_at=NOW - 500)) is None
    assert hang(EngineLoad(1, 5.0, 500.0)) is None


def test_without_a_counter_a_minute_without_an_answer():
    verdict = hang(EngineLoad(3, 80.0, 61.0), None, samples())
    assert verdict
    assert verdict.sign == "answer"
    assert hang(EngineLoad(3, 80.0, 60.0), None, samples()) is None
    assert hang(EngineLoad(3, 80.0, 61.0), Metrics(), ())


def test_long_requests_explain_long_silence():
    long = [sample(age=30.0 * place, seconds=100.0) for place in range(20)]
    assert hang(EngineLoad(3, 300.0, 199.0), None, long) is None
    assert hang(EngineLoad(3, 2000.0, 1999.0), None, long)


def test_an_engine_that_was_empty_for_long_is_not_waited_for_as_long():
    rare = [sample(age=1000.0 * place, seconds=2.0) for place in range(10)]
    assert hang(EngineLoad(1, 70.0, 70.0), None, rare)


# Canaries


def slow_canary(*seconds: float, baseline: float = 0.2, age: float = 5.0, loaded=False):
    made = [Canary("m-0", 1, NOW - age, each, loaded) for each in seconds]
    return detectors.find_slow_canary(ENGINE, made, baseline, NOW)


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


# Wander


def slow_with_wander(times: float, wander: float):
    speeds = {"m-0": SpeedResidual(math.log(times), 0.01, 40), "m-1": WELL}
    return detectors.find_slow(ENGINE, speeds, list(speeds), wander)


def test_what_engines_do_by_themselves_is_no_fault():
    assert slow_with_wander(1.5, wander=0.03)
    assert slow_with_wander(1.5, wander=0.1) is None
    verdict = slow_with_wander(1.6, wander=0.1)
    assert verdict
    assert "engines here waver by 10 %" in verdict.text


def test_more_than_twice_as_slow_is_slow_however_they_wander():
    assert slow_with_wander(2.25, wander=0.5)
    assert slow_with_wander(2.15, wander=0.5) is None


def test_wandering_excuses_an_engine_without_peers_too():
    speeds = {"m-0": SpeedResidual(math.log(1.9), 0.01, 40)}
    assert detectors.find_slow(ENGINE, speeds, ["m-0"], 0.05)
    assert detectors.find_slow(ENGINE, speeds, ["m-0"], 0.2) is None


def canary_with_wander(times: float, wander: float) -> SlowCanary | None:
    made = [Canary("m-0", 1, NOW, 0.25 * times)] * 3
    return detectors.find_slow_canary(ENGINE, made, 0.25, NOW, wander)


def test_a_canary_of_an_engine_that_wanders_may_take_longer():
    assert canary_with_wander(1.6, wander=0.03)
    assert canary_with_wander(1.6, wander=0.15) is None
    assert canary_with_wander(2.3, wander=0.5)
