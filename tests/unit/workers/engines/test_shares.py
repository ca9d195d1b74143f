"""What the workers of a host are dealt of the engines' limits."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workers.engines.shares import asks, deal, lend

LIMITS = st.dictionaries(
    st.sampled_from([f"{model}-{n}" for model in "abc" for n in range(3)]),
    st.integers(1, 70),
    min_size=1,
)
NUMBERS = st.integers(1, 9)


def models(limits: dict[str, int]) -> dict[str, str]:
    return {engine: engine[0] for engine in limits}


#: A busy machine draws slowly, which says nothing of what is drawn.
PATIENT = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)


@PATIENT
@given(LIMITS, NUMBERS)
def test_all_of_each_engine_is_dealt_and_no_more(limits: dict[str, int], number: int):
    parts = deal(limits, models(limits), number)
    assert len(parts) == number
    for engine, limit in limits.items():
        shares = [part.shares[engine] for part in parts]
        assert sum(shares) == limit
        assert max(shares) - min(shares) <= 1


@given(LIMITS, NUMBERS)
def test_each_worker_gets_as_much_as_another_over_all_engines(
    limits: dict[str, int], number: int
):
    totals = [
        sum(part.shares.values()) for part in deal(limits, models(limits), number)
    ]
    assert max(totals) - min(totals) <= 1
    assert min(totals) > 0 or sum(limits.values()) < number


@given(LIMITS, NUMBERS)
def test_one_worker_that_has_its_engines_leads_each_model(
    limits: dict[str, int], number: int
):
    parts = deal(limits, models(limits), number)
    led = sorted(model for part in parts for model in part.leads)
    assert led == sorted(set(models(limits).values()))
    for part in parts:
        for model in part.leads:
            assert any(part.shares[each] for each in limits if each[0] == model)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 90)), min_size=1))
def test_lending_neither_makes_places_nor_takes_used_ones(
    pairs: list[tuple[int, int]],
):
    shares = [share for share, _ in pairs]
    asked = [want for _, want in pairs]
    found = lend(shares, asked)
    assert sum(found) == sum(shares)
    for share, want, have in zip(shares, asked, found, strict=True):
        assert have >= min(share, want)
        assert have <= max(share, want)


def test_a_worker_asks_for_its_share_again_as_soon_as_it_uses_it():
    assert asks(share=32, used=0, full=False, idle=True) == 4
    assert asks(share=32, used=4, full=True, idle=False) == 32
    assert asks(share=32, used=32, full=True, idle=False) == 64
    assert lend([32, 32], [4, 64]) == [4, 60]
    assert lend([32, 32], [32, 64]) == [32, 32]


def test_without_workers_nothing_is_dealt():
    assert deal({"a": 4}, {"a": "a"}, 0) == []
