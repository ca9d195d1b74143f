"""Whether an engine fails at too many requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from modelserver.policy.health.failures import count_failures, find_errors, wilson_bound
from modelserver.values import Outcome
from tests.support.control import NOW, sample


def test_an_engine_that_fails_more_than_others_is_told():
    verdict = find_errors("m-0", 1, (20, 50), (1, 100))
    assert verdict
    assert verdict.text == (
        "errors: 20 of 50 requests failed, surely more than 24 %; allowed are 5 %"
    )


@pytest.mark.parametrize(
    ("own", "peers"),
    [((9, 9), (0, 100)), ((3, 30), (0, 100)), ((20, 50), (10, 100)), ((0, 60), (0, 0))],
)
def test_few_requests_little_share_or_failing_peers_are_no_error(own, peers):
    assert find_errors("m-0", 1, own, peers) is None


def test_only_the_engines_own_faults_count():
    made = [
        sample(outcome=Outcome.OK),
        sample(outcome=Outcome.ENGINE_FAULT),
        sample(outcome=Outcome.REQUEST_FAULT),
        sample(outcome=Outcome.CANCELLED),
        sample(outcome=Outcome.ENGINE_FAULT, age=61.0),
    ]
    assert count_failures(made, NOW) == (1, 3)


@given(some.integers(1, 500), some.data())
def test_wilsons_bound_is_below_the_share(trials: int, data):
    hits = data.draw(some.integers(0, trials))
    assert -1e-9 <= wilson_bound(hits, trials) <= hits / trials + 1e-9
