"""What kept requests say of an engine."""

from dataclasses import replace

import pytest

from modelserver.measured import Sample
from modelserver.operations.traffic import Traffic, percentile, traffic
from modelserver.values import Kind, Outcome


def sample(
    ended_at: float, seconds: float, tokens: int = 10, outcome: Outcome = Outcome.OK
) -> Sample:
    return Sample("m-0", 1, ended_at, seconds, 7, tokens, 1, 1, 7, outcome)


def test_without_requests_nothing_is_known():
    assert traffic((), Kind.COMPLETION, 1) == Traffic(0, None, None, None)


def test_tokens_per_second_cover_the_time_from_first_start_to_last_end():
    measured = traffic([sample(110.0, 4.0), sample(102.0, 2.0)], Kind.COMPLETION, 1)
    assert measured == Traffic(2, 2.0, 4.0, 20 / 10)


def test_an_embedding_counts_the_tokens_of_its_prompt():
    measured = traffic([sample(110.0, 2.0, tokens=0)], Kind.EMBEDDING, 1)
    assert measured.tokens_per_second == 7 / 2


@pytest.mark.parametrize(
    "outcome", [each for each in Outcome if each is not Outcome.OK]
)
def test_only_requests_that_went_well_count(outcome: Outcome):
    samples = [sample(110.0, 2.0), sample(111.0, 60.0, outcome=outcome)]
    assert traffic(samples, Kind.COMPLETION, 1) == Traffic(1, 2.0, 2.0, 5.0)


def test_what_was_before_the_last_start_does_not_count():
    samples = [replace(sample(110.0, 2.0), incarnation=2), sample(100.0, 60.0)]
    assert traffic(samples, Kind.COMPLETION, 2) == Traffic(1, 2.0, 2.0, 5.0)
    assert traffic(samples, Kind.COMPLETION, 3) == Traffic()


def test_requests_that_took_no_time_have_no_rate():
    assert traffic([sample(1.0, 0.0)], Kind.COMPLETION, 1).tokens_per_second is None


@pytest.mark.parametrize(
    ("count", "fraction", "expected"),
    [(1, 0.95, 1), (2, 0.5, 1), (3, 0.5, 2), (20, 0.95, 19), (64, 0.95, 61)],
)
def test_a_percentile_is_one_of_the_values(count: int, fraction: float, expected: int):
    values = [float(value) for value in range(count, 0, -1)]
    assert percentile(values, fraction) == expected
