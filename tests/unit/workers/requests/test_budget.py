"""The retry budget."""

import pytest

from workers.requests.budget import RetryBudget


def spent(budget: RetryBudget, now: float) -> RetryBudget:
    while budget.saved >= 1:
        budget.take(now)
    return budget


def test_a_full_budget_grants_retries_at_once():
    budget = RetryBudget(saved=2.0)
    assert [budget.take(5.0), budget.take(5.0)] == [0.0, 0.0]


def test_a_spent_budget_lets_retries_trickle():
    budget = spent(RetryBudget(saved=3.0, per_second=2.0), now=5.0)
    assert [budget.take(5.0), budget.take(5.0)] == [0.5, 1.0]


def test_time_brings_retries_back():
    budget = spent(RetryBudget(saved=3.0), now=5.0)
    assert budget.take(7.0) == 0.0


def test_first_attempts_pay_for_a_share_of_retries():
    budget = spent(RetryBudget(saved=1.0, share=0.2), now=5.0)
    for _ in range(5):
        budget.attempted()
    assert budget.take(5.0) == 0.0
    assert budget.take(5.0) > 0.0


def test_what_is_saved_has_a_bound():
    budget = RetryBudget(most=10.0, saved=10.0, at=1.0)
    budget.attempted()
    budget.take(1_000_000.0)
    assert budget.saved == pytest.approx(9.0)


def test_a_storm_of_faults_adds_no_more_than_its_share():
    budget = RetryBudget(share=0.2, most=100.0, saved=100.0, per_second=1.0)
    at_once = 0
    for request in range(10_000):
        budget.attempted()
        at_once += budget.take(1.0 + request / 1000) == 0.0
    assert at_once <= 100 + 0.2 * 10_000 + 10


def test_what_is_most_likely_no_engines_fault_costs_next_to_nothing():
    budget = RetryBudget(saved=1.0)
    assert not any(budget.take(5.0, cost=0.001) for _ in range(900))
    assert budget.saved > 0
