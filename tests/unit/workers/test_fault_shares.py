"""How many attempts it takes to tell poison from engines that fail, in numbers."""

from statistics import fmean

import pytest

from tests.support.fault_simulation import Simulation, Verdicts, Weather
from workers.engines.failures import FaultShares, likelihood

#: The share of an oracle's good answers that is promised.
PROMISED = 0.95


def against_an_oracle(found: Verdicts) -> float:
    """Attempts of an oracle that tries poison twice, over those that were made."""
    return (found.good + 2 * len(found.attempts)) / found.spent


@pytest.mark.parametrize("poison", [0.001, 0.01, 0.05, 0.15, 0.5])
def test_poison_that_takes_a_whole_generation_costs_no_more_than_an_oracle(
    poison: float,
):
    found = Simulation(Weather(poison=poison)).run(60.0, places=32)
    assert against_an_oracle(found) >= PROMISED
    assert found.wronged == 0
    # At the end only poison is left, so that probes tell.
    assert found.given_up == 0
    assert max(found.attempts) <= 10


@pytest.mark.parametrize("poison", [0.01, 0.15, 0.5])
def test_poison_that_fails_at_once_takes_few_attempts(poison: float):
    found = Simulation(Weather(poison=poison, failing=0.02)).run(60.0, places=32)
    assert found.mean_attempts <= 2.6
    assert found.good >= PROMISED * (1 - 2 * 0.02) * 64 * 60
    assert (found.wronged, found.given_up) == (0, 0)


def test_poison_that_comes_back_in_one_herd_is_told_as_soon():
    # All end at once, so that all that waited for a place begin at once.
    herd = Weather(poison=0.15, generation=0.5, failing=0.003, uneven=0.002)
    found = [Simulation(herd, seed=seed).run(30.0) for seed in (1, 2, 3)]
    assert fmean(each.mean_attempts for each in found) <= 2.3
    assert [each.wronged for each in found] == [0, 0, 0]


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_engines_that_fail_at_random_have_no_request_blamed(share: float):
    found = Simulation(Weather(random=share)).run(150.0, places=32)
    assert found.good > 6_000
    assert (found.wronged, found.given_up) == (0, 0)


@pytest.mark.parametrize("failing", [0.02, 1.0])
@pytest.mark.parametrize("poison", [0.0, 0.15])
def test_engines_that_begin_to_fail_everything_have_few_requests_blamed(
    poison: float, failing: float
):
    weather = Weather(poison=poison, failing=failing, broken=(60.0, 80.0))
    found = [Simulation(weather, seed=seed).run(90.0, rate=20) for seed in (1, 2, 3)]
    # Of 400 requests that came meanwhile.
    assert fmean(each.wronged for each in found) <= 6


def test_a_lone_engine_tells_poison_by_what_it_answers_in_between():
    found = Simulation(Weather(poison=0.15), engines=1).run(60.0, places=32)
    assert against_an_oracle(found) >= PROMISED
    assert (found.wronged, found.given_up) == (0, 0)
    # At the end nobody else asks.
    assert max(found.attempts) <= 10


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_probes_blame_no_request_for_engines_that_fail_at_random(share: float):
    found = Simulation(Weather(random=share), engines=1).run(60.0, rate=0.2)
    assert found.wronged == 0


def test_the_share_of_engines_follows_what_failures_proved_to_be():
    shares = FaultShares()
    for _ in range(50):
        shares.add(own=1.0)
    assert shares.of_engines() < 0.01
    for _ in range(500):
        shares.add(engines=1.0)
    assert shares.of_engines() > 0.85
    shares.add(engines=1.0, own=-1.0)
    assert shares.own == pytest.approx(49.0, abs=25.0)


def test_engines_that_fail_at_random_fail_at_what_failed_before_as_well():
    shares = FaultShares()
    for _ in range(70):
        shares.add(engines=1.0)
    for _ in range(30):
        shares.add(own=1.0)
    assert shares.of_engines(good=70, failed=30) == pytest.approx(1.0, abs=0.05)


def test_a_long_row_of_failures_is_unlikely():
    assert likelihood(8, 8, 0.15) < 1e-6
    assert likelihood(30, 200, 0.15) == 0.5
    assert likelihood(256, 512, 0.4) < 1e-4
