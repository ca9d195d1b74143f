"""How often people are told what comes and goes."""

from modelserver.policy.health.memory import Announced, ModelMemory
from modelserver.policy.health.telling import (
    CALM_SECONDS,
    comes_and_goes,
    stands,
    with_stutter,
)
from tests.support.control import NOW


def told(seconds_between: float, times: int = 6) -> list[bool]:
    """Whether people are told each time that it begins."""
    noted, said = Announced(), []
    for number in range(times):
        now = NOW + number * seconds_between
        noted, is_told = stands(noted, now, begins=True)
        said.append(is_told)
    return said


def test_what_comes_and_goes_is_told_three_times():
    assert told(120) == [True] * 3 + [False] * 3


def test_what_stayed_away_is_told_again():
    assert told(CALM_SECONDS) == [True] * 6


def test_what_stands_has_not_stayed_away():
    noted, _ = stands(Announced(3, NOW), NOW + 800, begins=False)
    assert comes_and_goes(noted, NOW + 1600)
    assert not comes_and_goes(noted, NOW + 800 + CALM_SECONDS)
    assert not comes_and_goes(Announced(2, NOW), NOW)


def test_a_stutter_of_all_is_told_when_it_begins():
    model, said = with_stutter(ModelMemory(), "they stutter", NOW)
    assert (model.stutter, said) == ("they stutter", True)
    model, said = with_stutter(model, "they stutter", NOW + 10)
    assert (model.stutter, said) == ("they stutter", False)
    model, said = with_stutter(model, "", NOW + 20)
    assert (model.stutter, said) == ("", False)
