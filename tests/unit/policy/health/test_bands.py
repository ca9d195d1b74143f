"""Whether an engine is slow for long prompts or long answers only."""

import math
from dataclasses import replace

import pytest

from modelserver.policy.health.bands import (
    find_slow_band,
    is_slow_somewhere,
    late_by_kind,
    without_kind,
)
from modelserver.policy.health.tallies import Tallies, size_of
from modelserver.values import EngineReport, EngineState
from tests.support.control import NOW

ENGINE = EngineReport("m-0", "m", "a", EngineState.READY, 1)
SHORT, LONG = size_of(300, 100), size_of(3000, 100)
ANSWER = size_of(300, 2000)
LN2 = math.log(2)


def tallies(
    *cells: tuple[int, float, float], since: float = NOW - 1000, spread: float = 0.1
) -> Tallies:
    """Sizes with their weights and their mean logarithms."""
    return Tallies(
        since,
        tuple(
            (size, weight, weight * mean, weight * (mean**2 + spread**2), 0.0)
            for size, weight, mean in cells
        ),
    )


WELL = tallies((SHORT, 500, 0.0), (LONG, 30, 0.0), (ANSWER, 20, 0.0))


def find(own: Tallies, *peers: Tallies, wander: float = 0.0):
    return find_slow_band(ENGINE, own, peers or (WELL, WELL), 0.05, wander, NOW)


def test_an_engine_slow_for_long_prompts_is_found_by_them():
    own = tallies((SHORT, 500, 0.02), (LONG, 30, LN2))
    found = find(own)
    assert found
    assert (found.long, found.tokens, found.requests) == ("prompts", 2048, 30)
    assert found.residual == pytest.approx(LN2)
    assert found.text.startswith(
        "slow for prompts of 2,048 tokens and more: takes 2.00x of what these requests "
        "explain (its 2 peers 1.00x; 30 such requests, standard error"
    )
    assert without_kind(own, found).cells == own.cells[:1]
    stands = replace(own, cells=((0, 9, 0.0, 0.0, 1.0), (15, 9, 0.0, 0.0, 3.0)))
    stands = replace(stands, pauses=4.0, lost=8.0)
    assert (without_kind(stands, found).pauses, without_kind(stands, found).lost) == (
        1.0,
        2.0,
    )


def test_an_engine_slow_for_long_answers_is_found_by_them():
    found = find(tallies((SHORT, 500, 0.0), (ANSWER, 20, LN2)))
    assert found
    assert (found.long, found.tokens) == ("answers", 1024)


def test_what_its_peers_need_for_such_requests_is_not_slow():
    peer = tallies((SHORT, 500, 0.0), (LONG, 30, LN2))
    assert find(tallies((SHORT, 500, 0.0), (LONG, 30, LN2)), peer) is None


def test_one_slow_in_everything_is_not_slow_for_a_kind():
    assert find(tallies((SHORT, 500, LN2), (LONG, 30, LN2))) is None


def test_without_other_requests_nothing_tells_that_it_is_the_kind():
    assert find(tallies((SHORT, 10, 0.0), (LONG, 30, LN2))) is None


def test_where_the_fit_is_wrong_for_all_more_is_needed():
    peer = tallies((SHORT, 500, 0.0), (LONG, 30, 0.4))
    assert find(tallies((SHORT, 500, 0.0), (LONG, 30, 0.4 + 0.5)), peer) is None
    assert find(tallies((SHORT, 500, 0.0), (LONG, 30, 0.4 + 0.8)), peer)


def test_requests_that_no_peer_has_are_not_compared():
    longer = size_of(30_000, 100)
    assert find(tallies((SHORT, 500, 0.0), (longer, 30, LN2))) is None


def test_few_or_scattered_requests_say_nothing():
    assert find(tallies((SHORT, 500, 0.0), (LONG, 4, LN2))) is None
    scattered = tallies((SHORT, 500, 0.0), (LONG, 30, 0.4), spread=1.0)
    assert find(scattered) is None


def test_what_wanders_so_far_is_not_slow():
    assert find(tallies((SHORT, 500, 0.0), (LONG, 30, LN2)), WELL, wander=0.3) is None


def test_only_counts_of_some_minutes_are_compared():
    slow = ((SHORT, 500, 0.0), (LONG, 30, LN2))
    assert find(tallies(*slow, since=NOW - 50)) is None
    assert find(tallies(*slow), tallies((LONG, 30, 0.0), since=NOW - 50)) is None


def test_a_slow_size_makes_suspicious():
    assert is_slow_somewhere(tallies((SHORT, 500, 0.0), (LONG, 3, LN2)))
    assert not is_slow_somewhere(WELL)


def late(*cells: tuple[int, float, float]) -> Tallies:
    """Sizes with their weights and their late requests."""
    return Tallies(0.0, tuple((size, w, 0.0, 0.0, late) for size, w, late in cells))


def test_late_requests_of_a_rare_kind_are_no_stutter():
    assert late_by_kind(late((SHORT, 90, 0.0), (LONG, 6, 3.0)))
    assert late_by_kind(late((SHORT, 90, 4.0), (LONG, 6, 5.0)))
    assert late_by_kind(late((SHORT, 90, 0.0), (ANSWER, 15, 3.0)))
    assert not late_by_kind(late((SHORT, 90, 18.0), (LONG, 6, 3.0)))
    assert not late_by_kind(late((SHORT, 90, 2.0), (LONG, 6, 2.0)))


def test_those_of_a_usual_kind_may_be_chance():
    assert not late_by_kind(late((SHORT, 50, 0.0), (LONG, 50, 3.0)))
    assert not late_by_kind(late((LONG, 50, 30.0)))
