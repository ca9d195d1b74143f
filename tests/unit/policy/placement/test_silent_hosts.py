"""Engines keep their places while their host is silent, and when it is back."""

from dataclasses import replace

import pytest

from modelserver.inventory import Host
from modelserver.policy.health.memory import HealthMemory, ModelMemory
from modelserver.policy.placement.planning import plan
from modelserver.policy.placement.silent_hosts import (
    LEAST_GRACE_SECONDS,
    REPORTING_SECONDS,
    HostSilences,
    find_away,
    find_returned,
    follow,
)
from modelserver.policy.rebalance.demand import view_of
from modelserver.policy.snapshot import Snapshot
from modelserver.values import EngineState
from tests.support.placement import after, fleet, model, report, spec

NOW = 1000.0
WISH = spec("m-0", "a")
SILENT = HostSilences({"a": NOW - 6})


def silent(state: EngineState = EngineState.READY, **more) -> Snapshot:
    """Host a does not report, and host b has room."""
    engines = [report(WISH, state)]
    scene = fleet(model("m", gpus=0), hosts=[Host("b")], wishes=[WISH], engines=engines)
    return replace(scene, **more)


def away(scene: Snapshot, now: float, grace: float = 0.0) -> Snapshot:
    return replace(scene, away=find_away(scene, SILENT, grace, now))


def test_a_serving_engine_stays_while_its_host_is_silent_for_a_while():
    assert after(silent())["m-0"].host == "b"  # Nobody knows better.
    kept = away(silent(), NOW)
    assert after(kept)["m-0"].host == "a"
    assert "host a is silent" in plan(kept).waiting["m-0"]
    long_after = NOW - 6 + LEAST_GRACE_SECONDS
    assert after(away(silent(), long_after - 1))["m-0"].host == "a"
    assert after(away(silent(), long_after))["m-0"].host == "b"


def test_a_model_that_loads_for_long_keeps_its_place_for_as_long():
    memory = HealthMemory(models={"m": ModelMemory(load_seconds=900.0)})
    scene = silent(memory=memory)
    assert after(away(scene, NOW + 800))["m-0"].host == "a"
    assert after(away(scene, NOW + 900))["m-0"].host == "b"
    assert after(away(scene, NOW, grace=5.0))["m-0"].host == "b"


def test_what_has_nothing_to_lose_is_placed_at_once():
    for state in (EngineState.PENDING, EngineState.BACKOFF, EngineState.STOPPED):
        assert after(away(silent(state), NOW))["m-0"].host == "b"


def test_an_engine_of_a_silent_host_counts_as_serving_for_other_decisions():
    (lost,) = view_of(silent(), NOW).engines
    assert lost.state is EngineState.PENDING
    (kept,) = view_of(away(silent(), NOW), NOW).engines
    assert kept.state is EngineState.READY


def test_silence_counts_from_the_first_look_that_missed_the_host():
    seen = follow(HostSilences(), {"a", "b"}, {"b"}, NOW - 2, NOW)
    assert seen.since == {"a": NOW}
    later = follow(seen, {"a", "b"}, {"b"}, NOW, NOW + 2)
    assert later.since == {"a": NOW}
    assert follow(later, {"a", "b"}, {"a", "b"}, NOW + 2, NOW + 4).since == {}
    # It said that it ends.
    assert follow(later, {"b"}, {"b"}, NOW + 2, NOW + 4).since == {}


def test_time_in_which_nobody_looked_is_no_silence():
    before = HostSilences({"a": NOW - 300})
    found = follow(before, {"a", "b"}, {"b"}, NOW - 300, NOW)
    assert found == HostSilences({"a": NOW}, resumed_at=NOW)
    assert found.awaits_hosts(NOW)
    assert not found.awaits_hosts(NOW + REPORTING_SECONDS)
    assert not replace(found, since={}).awaits_hosts(NOW)


def test_a_clock_that_was_set_back_stops_no_decision():
    ahead = HostSilences({"a": NOW + 3600}, resumed_at=NOW + 3600)
    later = follow(ahead, ["a", "b"], ["b"], looked_at=NOW + 3601, now=NOW)
    assert later == HostSilences({"a": NOW}, resumed_at=NOW)
    assert not later.awaits_hosts(NOW + REPORTING_SECONDS)
    assert later.awaits_hosts(NOW)


@pytest.mark.parametrize(
    ("state", "alive_at", "where"),
    [
        (EngineState.READY, NOW, "a"),
        (EngineState.STARTING, NOW, "b"),
        (EngineState.READY, NOW - 60, "b"),
    ],
)
def test_who_serves_on_a_host_that_is_back_stays_there(state, alive_at, where):
    told = replace(report(WISH, state), alive_at=alive_at)
    moved = spec("m-0", "b")
    scene = fleet(
        model("m", gpus=0),
        hosts=[Host("a"), Host("b")],
        wishes=[moved],
        engines=[told],
    )
    scene = replace(scene, returned=find_returned(scene, NOW))
    assert after(scene)["m-0"].host == where
