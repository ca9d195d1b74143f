"""The scenarios of control, one seed each; ``make scenarios`` runs six."""

import pytest

from tests.scenarios.bands import BANDS
from tests.scenarios.common import COMMON
from tests.scenarios.control import SCENARIOS, healthy
from tests.scenarios.levels import LEVELS
from tests.scenarios.poison import POISON
from tests.scenarios.staging import HOUR, Scenario
from tests.scenarios.stutter import STUTTER
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
    "10 s of 60",
    "5 s of 30, 4/s",
    "two of eight",
    "all, one by one",
    "lone, 20 s",
    "one pause",
    "KV cache full, of two",
    ">= 2048, 4/s",
    ">= 1024",
    "prompts x 10 to one",
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
        for each in (*VARIATIONS, *WEATHER, *STUTTER, *BANDS)
        if any(part in each.name for part in QUICK)
    ],
    ids=lambda each: each.name,
)
def test_control_does_right_by_other_fleets(scenario: Scenario):
    got = scenario.run(1)
    assert got.ok, f"expected {scenario.expected}, got {got.text}"


@pytest.mark.parametrize("scenario", [*LEVELS, *COMMON], ids=lambda each: each.name)
def test_control_learns_no_fault_and_blames_nobody_for_what_all_have(
    scenario: Scenario,
):
    got = scenario.run(1)
    assert got.ok, f"expected {scenario.expected}, got {got.text}"


@pytest.mark.parametrize("scenario", POISON, ids=lambda each: each.name)
def test_poison_costs_itself_and_nothing_else(scenario: Scenario):
    got = scenario.run(1)
    assert got.ok, f"expected {scenario.expected}, got {got.text}"
