"""A worker obeys an engine's limit as it changes, without a restart."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelserver.values import EngineState
from tests.support.processes import ValkeyProcess, eventually
from tests.support.workers import PATIENCE, FleetSite, answers, open_fleet


@pytest.fixture
def fleet(tmp_path: Path, valkey: ValkeyProcess) -> Iterator[FleetSite]:
    with open_fleet(tmp_path, valkey.url) as fleet:
        fleet.engine("writer-0", "--latency", "0.2", limit=8)
        fleet.worker()
        yield fleet


def test_lowered_limit_holds_for_a_degraded_engine_and_a_raised_one_is_used(
    fleet: FleetSite,
) -> None:
    engine = fleet.engines["writer-0"]
    results = fleet.send([f"limited {number}" for number in range(60)])
    eventually(lambda: len(engine.stats()["in_flight"]) == 8, PATIENCE)
    fleet.report("writer-0", EngineState.DEGRADED, limit=2)
    eventually(lambda: len(engine.stats()["in_flight"]) <= 2, PATIENCE)
    seen = []

    def some_more() -> bool:
        seen.append(len(engine.stats()["in_flight"]))
        return len(seen) >= 60

    eventually(some_more, PATIENCE)
    assert max(seen) == 2
    fleet.report("writer-0", EngineState.READY, limit=8)
    eventually(lambda: len(engine.stats()["in_flight"]) == 8, PATIENCE)
    assert all(answers(results))
