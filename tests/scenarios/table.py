"""The table of the scenarios of control: what was expected, what came, seed by seed."""

from collections.abc import Sequence

from benchmarks.report import Cell, Goal, Report
from tests.scenarios.bands import BANDS
from tests.scenarios.common import COMMON
from tests.scenarios.control import SCENARIOS
from tests.scenarios.levels import LEVELS
from tests.scenarios.poison import POISON
from tests.scenarios.staging import HOUR, Scenario, new_fleet
from tests.scenarios.stutter import STUTTER
from tests.scenarios.variations import VARIATIONS
from tests.scenarios.weather import WEATHER

SEEDS = range(1, 7)
#: The number of engines that must not be flagged.
HEALTHY_ENGINES = 8
#: The hours for which they must not be, with each seed.
HEALTHY_HOURS = 7


def control() -> Report:
    """The acceptance scenarios of control, six seeds each."""
    return _table(SCENARIOS)


def control_more() -> Report:
    """Control with other fleets, loads and faults, six seeds each."""
    return _table(VARIATIONS)


def control_weather() -> Report:
    """Control where speeds, loads and mixes change all the time, six seeds each."""
    return _table(WEATHER)


def poison() -> Report:
    """Control where any engine fails at some of the requests, six seeds each."""
    return _table(POISON)


def stutter() -> Report:
    """Engines that stand still again and again, six seeds each."""
    return _table(STUTTER)


def bands() -> Report:
    """Engines that are slow for long prompts or long answers, six seeds each."""
    return _table(BANDS)


def levels() -> Report:
    """Engines that are slow for some requests, and then for all, six seeds each."""
    return _table(LEVELS)


def common() -> Report:
    """What slows all engines or half of them, six seeds each."""
    return _table(COMMON)


def false_flags() -> Report:
    """Healthy engines under a load and a mix that wander: nobody is flagged."""
    rows: list[tuple[Cell, ...]] = []
    flags = 0
    for seed in SEEDS:
        fleet = new_fleet(seed, load=2.0 + seed / 2, wander=0.5)
        fleet.streams[0].burst = 1 if seed % 2 else 12
        fleet.run(HEALTHY_HOURS * HOUR)
        taken = len(fleet.store.drains())
        suspected = len(fleet.store.verdicts)
        flags += taken
        hours = HEALTHY_ENGINES * HEALTHY_HOURS
        rows.append((seed, hours, fleet.counts["done"], suspected, taken))
    hours = HEALTHY_ENGINES * HEALTHY_HOURS * len(SEEDS)
    return Report(
        columns=("seed", "engine-hours", "requests", "verdicts", "taken away"),
        rows=tuple(rows),
        goals=(
            Goal("healthy engine-hours", hours, 300),
            Goal("false flags per engine-hour", flags / hours, 0, "", True),
        ),
    )


def _table(scenarios: Sequence[Scenario]) -> Report:
    got: dict[str, list[str]] = {each.name: [] for each in scenarios}
    held: dict[str, int] = dict.fromkeys(got, 0)
    # Seed by seed, so that the warm fleet of a seed serves all its scenarios.
    for seed in SEEDS:
        for each in scenarios:
            result = each.run(seed)
            held[each.name] += result.ok
            got[each.name].append(result.text + ("" if result.ok else " (!)"))
    return Report(
        columns=("scenario", "expected", *(f"seed {seed}" for seed in SEEDS)),
        rows=tuple((each.name, each.expected, *got[each.name]) for each in scenarios),
        goals=tuple(
            Goal(f"seeds that hold, {each.name}", held[each.name], len(SEEDS))
            for each in scenarios
        ),
    )


TABLES = {
    "control": control,
    "control-more": control_more,
    "control-weather": control_weather,
    "poison": poison,
    "stutter": stutter,
    "bands": bands,
    "levels": levels,
    "common": common,
    "false-flags": false_flags,
}
