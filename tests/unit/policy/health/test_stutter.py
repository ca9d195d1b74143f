"""Whether an engine stands still again and again."""

import pytest

from modelserver.policy.health.stutter import (
    better_half,
    find_stutter,
    find_stutter_together,
)
from modelserver.policy.health.tallies import Tallies
from modelserver.values import EngineReport, EngineState
from tests.support.control import NOW

ENGINE = EngineReport("m-0", "m", "a", EngineState.READY, 1)


def tallies(late: float, requests: float = 60.0, pauses: float = 4.0) -> Tallies:
    return Tallies(NOW - 1000, ((3, requests, 0.0, 0.0, late),), pauses, 8.0 * pauses)


WELL = tallies(0.0, pauses=0.0)


def find(own: Tallies, *peers: Tallies, known: bool = False):
    return find_stutter(ENGINE, own, peers, NOW, known)


def test_many_late_requests_in_several_pauses_are_a_stutter():
    found = find(tallies(12), WELL, WELL, WELL)
    assert found
    assert found.late == pytest.approx(0.2)
    assert found.peers == 3
    assert found.text == (
        "stutters: stands still for 8 s and more, again and again, and is well in "
        "between: 20 % of 60 requests were late (its 3 peers 0 %), 11 % of its time is "
        "lost"
    )
    assert found.residual == pytest.approx(0.117, abs=0.01)


def test_one_long_pause_is_none():
    assert find(tallies(12, pauses=1.0), WELL) is None


def test_few_requests_say_nothing():
    assert find(tallies(8, requests=9.0), WELL) is None


def test_late_requests_by_chance_are_none():
    assert find(tallies(3), WELL) is None


def test_what_its_peers_have_too_is_none():
    assert find(tallies(12), tallies(6), tallies(7)) is None
    assert find(tallies(12), tallies(6), WELL)


def test_a_busy_engine_of_which_few_requests_are_late_loses_time():
    busy, well = tallies(12, requests=600.0), tallies(0, requests=600.0, pauses=0.0)
    found = find(busy, well)
    assert found
    assert found.at_least < found.allowed
    assert find(busy, tallies(12, requests=600.0)) is None


def test_requests_that_are_slow_one_at_a_time_are_no_pauses():
    """As where how many tokens a step gives is a matter of luck."""
    well = tallies(0, requests=600.0, pauses=0.0)
    assert find(tallies(5, requests=600.0), well) is None
    assert find(tallies(8, requests=600.0), well)


def test_without_peers_more_is_needed():
    assert find(tallies(12, pauses=2.5)) is None
    assert find(tallies(7)) is None
    found = find(tallies(20))
    assert found
    assert "no peers" in found.text
    assert find(tallies(20), tallies(0, requests=3.0))


def test_one_that_is_known_for_it_is_well_only_when_it_surely_is():
    assert find(tallies(6, pauses=1.0), WELL, known=True)
    assert find(tallies(0.5, pauses=0.5), WELL, known=True) is None


def test_the_better_half_of_those_that_tell():
    few = tallies(0.0, requests=5.0)
    assert better_half([tallies(9), WELL, few, tallies(5)]) == [WELL, tallies(5)]
    assert better_half([few]) == []


def test_most_stutter_together():
    found = find_stutter_together("m", [tallies(12)] * 4, known=False)
    assert found
    assert found.text.startswith("the 4 engines of m stutter, 20 % of requests")
    assert find_stutter_together("m", [tallies(12)], known=False) is None
    assert find_stutter_together("m", [tallies(12, pauses=1.0)] * 4, False) is None
    assert find_stutter_together("m", [tallies(5)] * 2, known=False) is None
    assert find_stutter_together("m", [tallies(7)] * 2, known=True)


@pytest.mark.parametrize(("stuttering", "well"), [(3, 1), (6, 2), (7, 1), (12, 4)])
def test_a_quarter_that_is_well_does_not_hide_that_most_stutter(stuttering, well):
    engines = [tallies(12)] * stuttering + [WELL] * well
    found = find_stutter_together("m", engines, known=False)
    assert found
    assert found.late == pytest.approx(0.2)
    engines = [tallies(12)] * well + [WELL] * stuttering
    assert find_stutter_together("m", engines, known=False) is None


@pytest.mark.parametrize(("stuttering", "well"), [(2, 1), (2, 2), (5, 3), (10, 6)])
def test_where_more_are_well_each_that_stutters_is_to_blame(stuttering, well):
    engines = [tallies(12)] * stuttering + [WELL] * well
    assert find_stutter_together("m", engines, known=False) is None
