"""The scenarios of control, one seed each; ``make scenarios`` runs six."""

import pytest

from tests.scenarios.control import SCENARIOS, healthy
from tests.scenarios.staging import HOUR, Scenario
from tests.scenarios.variations import VARIATIONS
from tests.scenarios.weather import WEATHER

#: Variations that take long are left to ``make scenarios``.
QUICK = (
    "2 engines, one 2x",
    "all 2x",
    "all fail",
    "batch of 6",
    "slow GPUs",
    "after 2 min",
    "of two",
)


def test_healthy_engines_are_left_alone():
    assert healthy(1, HOUR / 2).ok


@pytest.mark.parametrize("scenario", SCENARIOS[1:], ids=lambda each: each.name)
def test_control_does_what_the_scenario_asks_for(scenario: Scenario):
    got = scenario.run(1)
    assert got.ok, f"expected {scenario.expected}, got {got.text}"


@pytest.mark.parametrize(
    "scenario",
    [
        each
        for each in (*VARIATIONS, *WEATHER)
        if any(part in each.name for part in QUICK)
    ],
    ids=lambda each: each.name,
)
def test_control_does_right_by_other_fleets(scenario: Scenario):
    got = scenario.run(1)
    assert got.ok, f"expected {scenario.expected}, got {got.text}"
