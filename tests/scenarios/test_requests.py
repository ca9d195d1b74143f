"""What requests do to engines, and engines to some requests, one seed each."""

import pytest

from tests.scenarios.bands import BANDS
from tests.scenarios.common import COMMON
from tests.scenarios.levels import LEVELS
from tests.scenarios.poison import POISON
from tests.scenarios.staging import Scenario
from tests.scenarios.stutter import STUTTER

#: The others are left to ``make scenarios``.
QUICK = (
    # Poison.
    "1 % fail late",
    "15 % fail late",
    "50 % fail at once",
    "one request, 4",
    "lone engine",
    "m-3 fails at 20 %, 15 % poison",
    "places held",
    # Levels.
    "long, then all 3x",
    "skew, then all 2x",
    "long prompts, relaunched",
    # Common causes.
    "all 3x slow at 0.4/s",
    "after 3 min, 3/s",
    "nobody asks",
    "within 3 min, 0.4/s",
    "one 6x, 12/s",
    "half cached",
    "lone, slow",
    # Stutters.
    "10 s of 60, 4/s",
    "5 s of 30, 4/s",
    "two of eight",
    "all, one by one",
    "lone, 20 s",
    "one pause",
    # Slow kinds.
    ">= 2048, 4/s",
    ">= 1024",
    "prompts x 10 to one",
)


@pytest.mark.parametrize(
    "scenario",
    [
        each
        for each in (*POISON, *LEVELS, *COMMON, *STUTTER, *BANDS)
        if any(part in each.name for part in QUICK)
    ],
    ids=lambda each: each.name,
)
def test_a_batch_with_bad_rows_costs_its_bad_rows_and_nothing_else(scenario: Scenario):
    got = scenario.run(1)
    assert got.ok, f"expected {scenario.expected}, got {got.text}"
