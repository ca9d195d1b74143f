"""Whether an engine fails at too many requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from modelserver.measured import Sample
from modelserver.policy.health.failures import (
    answers_nothing,
    count_failures,
    find_errors,
    find_faults,
    wilson_bound,
)
from modelserver.values import Outcome
from tests.support.control import NOW, sample


def test_an_engine_that_fails_more_than_others_is_told():
    verdict = find_errors("m-0", 1, (20, 50), [(1, 100)])
    assert verdict
    assert verdict.text == (
        "errors: 20 of 50 requests failed, surely more than 24 %; allowed are 5 %"
    )


@pytest.mark.parametrize(
    ("own", "peers"),
    [
        ((9, 9), (0, 100)),
        ((3, 30), (0, 100)),
        ((20, 50), (10, 100)),
        ((0, 60), (0, 0)),
        ((40, 40), (40, 40)),
    ],
)
def test_few_requests_little_share_or_failing_peers_are_no_error(own, peers):
    assert find_errors("m-0", 1, own, [peers]) is None


def test_peers_with_few_requests_prove_nothing():
    assert find_errors("m-0", 1, (10, 40), [(0, 3)]) is None
    assert find_errors("m-0", 1, (10, 40), [(0, 60)])


def test_an_engine_without_peers_may_fail_at_half():
    assert find_errors("m-0", 1, (38, 60), []) is None
    assert find_errors("m-0", 1, (50, 60), [(0, 0)])


def test_half_of_the_engines_are_told_by_the_other_half():
    """Beside all its peers together each fails at less than three times their share."""
    broken, well = [(13, 64)] * 3, [(0, 64)] * 4
    verdict = find_errors("m-0", 1, (13, 64), broken + well)
    assert verdict
    assert verdict.of_many
    assert verdict.text.endswith("allowed are 5 %, by the better half of its peers")
    one = find_errors("m-0", 1, (13, 64), well)
    assert one
    assert not one.of_many


def test_the_better_half_by_chance_tells_nothing():
    alike = [(2, 64), (3, 64), (5, 64), (6, 64), (7, 64), (8, 64), (9, 64)]
    assert find_errors("m-0", 1, (13, 64), alike) is None
    few = [(0, 9)] * 4 + [(9, 9)] * 3
    assert find_errors("m-0", 1, (13, 64), few) is None


def test_a_withdrawn_fault_is_a_request_that_did_not_fail():
    made = [
        withdrawn(age=1.0, ago=4.0),
        sample(outcome=Outcome.REPEATED, age=1.0),
        sample(outcome=Outcome.ENGINE_FAULT, age=3.0),
        sample(outcome=Outcome.ENGINE_FAULT, age=5.0),
        sample(age=6.0),
    ]
    assert count_failures(made, NOW) == (1, 3)
    assert [NOW - each.ended_at for each in find_faults(made)] == [3.0]


def test_what_withdraws_an_older_fault_excuses_no_newer_one():
    fault = sample(outcome=Outcome.ENGINE_FAULT, age=5.0)
    assert count_failures([withdrawn(1.0, ago=70.0), fault], NOW) == (1, 1)
    old = sample(outcome=Outcome.ENGINE_FAULT, age=71.0)
    assert count_failures([withdrawn(1.0, ago=70.0), fault, old], NOW) == (1, 1)


def test_without_a_time_the_last_fault_before_it_is_taken_back():
    made = [
        sample(outcome=Outcome.ENGINE_FAULT, age=age) for age in (1.0, 3.0, 5.0, 7.0)
    ]
    made += [withdrawn(2.0), withdrawn(4.0)]
    assert [NOW - each.ended_at for each in find_faults(made)] == [1.0, 7.0]


def test_an_engine_answers_nothing_if_its_last_ten_requests_failed():
    faults = [sample(outcome=Outcome.ENGINE_FAULT, age=n) for n in range(10)]
    assert answers_nothing([*faults, sample(age=20.0)])
    assert not answers_nothing(faults[:9])
    assert not answers_nothing([*faults[:9], sample(age=20.0), *faults[9:]])
    assert not answers_nothing([*faults, withdrawn(0.0, ago=3.0)])


def withdrawn(age: float, ago: float = 0.0) -> Sample:
    """What takes back a fault of so many seconds before it."""
    return sample(outcome=Outcome.WITHDRAWN, age=age, seconds=ago)


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
