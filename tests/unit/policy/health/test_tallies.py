"""What an engine's requests of the last minutes were like, by their size."""

import math

import pytest

from modelserver.policy.health.tallies import (
    MOST_LOG,
    Counted,
    Tallies,
    added,
    edges_of,
    size_of,
)


def request(began: float, ended: float, late_by: float = 0.0, size: int = 3) -> Counted:
    return Counted(size, 0.5, late_by, began, ended)


def test_counts_fade_and_new_ones_are_added():
    once = added(Tallies(), [request(0, 3)], 1.0, now=100.0)
    twice = added(once, [request(5, 8)], 0.5, now=300.0)
    assert once.since == twice.since == 100.0
    assert twice.cells == ((3, 1.5, 0.75, 0.375, 0.0),)


def test_what_weighs_nothing_any_more_is_forgotten():
    old = added(Tallies(), [request(0, 3)], 1.0, now=100.0)
    assert added(old, [], 0.1, now=900.0).cells == ()


def test_an_extreme_counts_as_three_times():
    cells = added(Tallies(), [Counted(0, 5.0, 0.0, 0, 1)], 1.0, now=1.0).cells
    assert cells[0][2] == pytest.approx(MOST_LOG, abs=1e-3)
    cells = added(Tallies(), [Counted(0, -5.0, 0.0, 0, 1)], 1.0, now=1.0).cells
    assert cells[0][2] == pytest.approx(-math.log(3), abs=1e-3)


def test_late_requests_that_overlap_are_one_pause():
    late = [request(0, 9, 5.0), request(2, 8, 4.0), request(9, 12, 2.0)]
    tallies = added(Tallies(), late, 1.0, now=20.0)
    assert tallies.cells[0][4] == 3
    assert (tallies.pauses, tallies.lost, tallies.late_until) == (2.0, 6.0, 12)


def test_the_last_canary_is_remembered():
    canary = Counted(0, 0.0, 0.0, 50.0, 50.3, is_canary=True)
    assert added(Tallies(), [canary], 1.0, now=60.0).canary_at == 50.0


def test_sizes_have_numbers_from_which_their_edges_are_known():
    assert edges_of(size_of(2048, 1024)) == (2, 4)
    assert edges_of(size_of(2047, 1023)) == (1, 3)
    assert edges_of(size_of(10**6, 10**6)) == (8, 6)
