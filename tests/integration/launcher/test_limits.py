"""A worker obeys an engine's limit as it changes, without a restart."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelserver.values import EngineState
from tests.support.processes import ValkeyProcess, eventually
from tests.support.workers import HOST, PATIENCE, FleetSite, answers, open_fleet


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
    engine.fault(hang=True)
    results = fleet.send([f"first {number}" for number in range(8)])
    eventually(lambda: fleet.in_flight("writer-0") == 8, PATIENCE)
    fleet.report("writer-0", EngineState.DEGRADED, limit=2)
    engine.fault()
    eventually(lambda: share(fleet) == 2, PATIENCE)
    results += fleet.send([f"limited {number}" for number in range(60)])
    eventually(lambda: fleet.in_flight("writer-0") == 2, PATIENCE)
    seen = []

    def some_more() -> bool:
        seen.append(len(engine.stats()["in_flight"]))
        return len(seen) >= 60

    eventually(some_more, PATIENCE)
    assert max(seen) == 2
    engine.fault(hang=True)
    results += fleet.send([f"more {number}" for number in range(8)])
    fleet.report("writer-0", EngineState.READY, limit=8)
    eventually(lambda: fleet.in_flight("writer-0") == 8, PATIENCE)
    engine.fault()
    assert all(answers(results))


def share(fleet: FleetSite) -> int:
    """What the worker may have on its engine, or has, as it told the store."""
    (entry,) = fleet.store.client.hvals(fleet.store.keys.shares(HOST))
    return int(json.loads(entry)["engines"]["writer-0"][0])
