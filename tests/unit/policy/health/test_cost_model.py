"""What a request should take: fitting, residuals, the reservoir."""

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from modelserver.policy.health.cost_model import (
    BAND_ROWS,
    BANDS,
    Reservoir,
    Row,
    band,
    fit,
    row,
)
from tests.support.control import FIT, sample

TRUE = (0.02, 0.00002, 0.008, 0.0002, 0.00009)


def rows(number: int = 400, noise: float = 0.05, seed: int = 1) -> list[Row]:
    random = Random(seed)
    made = []
    for _ in range(number):
        prompt, completion = random.lognormvariate(6, 1), random.lognormvariate(5, 0.7)
        inflight, admitted = random.uniform(0, 32), prompt * random.uniform(1, 8)
        of = (prompt, completion, inflight, admitted)
        values = (1.0, prompt, completion, completion * inflight, admitted)
        seconds = sum(share * each for share, each in zip(TRUE, values, strict=True))
        made.append((*of, seconds * math.exp(random.gauss(0, noise))))
    return made


def test_the_shares_are_found_again():
    fitted = fit(rows())
    assert fitted.shares[2] == pytest.approx(0.008, rel=0.1)
    assert fitted.shares[3] == pytest.approx(0.0002, rel=0.1)
    assert fitted.sigma == pytest.approx(0.05, rel=0.3)
    assert fitted.rows == 400


def test_what_was_not_seen_is_expected_from_the_shares():
    fitted = fit(rows())
    far = (20_000.0, 100.0, 20.0, 60_000.0, 1.0)
    values = (1.0, far[0], far[1], far[1] * far[2], far[3])
    true = sum(share * each for share, each in zip(TRUE, values, strict=True))
    assert fitted.seconds(far) == pytest.approx(true, rel=0.15)


def test_a_tenth_of_outliers_hardly_matters():
    spoiled = [
        (*each[:4], each[4] * (20 if place % 10 == 0 else 1))
        for place, each in enumerate(rows())
    ]
    clean, robust = fit(rows()), fit(spoiled)
    typical = (500.0, 150.0, 10.0, 1500.0, 1.0)
    assert robust.seconds(typical) == pytest.approx(clean.seconds(typical), rel=0.1)


def test_requests_without_completion_tokens_can_be_fitted():
    embeddings = [
        (p, 0.0, 2.0, p, 0.01 + 0.0001 * p) for p in map(float, range(1, 200))
    ]
    fitted = fit(embeddings)
    assert fitted.shares[2:4] == (0.0, 0.0)
    assert fitted.seconds((100.0, 0.0, 2.0, 100.0, 0.0)) == pytest.approx(0.02, 0.01)


@settings(deadline=None)
@given(some.integers(0, 50))
def test_no_share_is_ever_negative(seed: int):
    # The faster the longer the prompt: least squares would want a negative share.
    odd = [(*of[:4], 1.0 / (1.0 + of[0])) for of in rows(60, seed=seed)]
    assert min(fit(odd).shares) >= 0


def test_the_residual_is_the_logarithm_of_measured_over_expected():
    assert FIT.log_ratio(row(sample(seconds=2.0), 32)) == pytest.approx(math.log(2))


def test_the_mean_in_flight_is_at_most_what_the_engine_runs():
    assert row(sample(), 32)[2] == 2.0
    assert row(sample(), 1)[2] == 1.0


def test_a_band_keeps_so_many_rows_and_no_more():
    full = Reservoir().offer(rows(5000))
    assert all(len(kept) <= BAND_ROWS for kept in full.bands)
    assert full.offered == 5000
    assert len(full.bands) == BANDS
    assert sum(len(kept) == BAND_ROWS for kept in full.bands) >= 8


def test_a_reservoir_forgets_slowly():
    old = Reservoir().offer([(100.0, 9.0, 1.0, 100.0, 1.0)] * 3000)
    new = old.offer([(100.0, 9.0, 1.0, 100.0, 2.0)] * 500)
    share = sum(each[4] == 2.0 for each in new.rows) / BAND_ROWS
    assert 0.1 < share < 0.9


def test_nothing_new_leaves_the_very_same_reservoir():
    full = Reservoir().offer(rows(10))
    assert full.offer([]) is full


@given(some.lists(some.floats(1, 1e5), max_size=50))
def test_offering_together_or_one_by_one_is_the_same(prompts: list[float]):
    made = [(prompt, 10.0, 3.0, prompt, 1.0) for prompt in prompts]
    one_by_one = Reservoir()
    for each in made:
        one_by_one = one_by_one.offer([each])
    assert one_by_one == Reservoir().offer(made)


@given(some.floats(0, 1e6), some.floats(0, 1e4))
def test_every_request_has_a_band(prompt: float, inflight: float):
    assert 0 <= band((prompt, 1.0, inflight, prompt, 1.0)) < BANDS
