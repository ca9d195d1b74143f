"""Which engine moves to a host that has much less to do."""

from dataclasses import replace

import pytest

from modelserver.inventory import Host
from modelserver.policy.actions import Want
from modelserver.policy.decide import apply, decide
from modelserver.policy.orders import DRAIN, MOVE
from modelserver.policy.placement.evening import QUIET_SECONDS, even_out
from modelserver.policy.placement.silent_hosts import find_returned
from modelserver.policy.replay import RulesOf
from modelserver.policy.snapshot import Snapshot
from modelserver.values import (
    EngineReport,
    EngineSpec,
    EngineState,
    Kind,
    ModelSpec,
    Order,
    Wish,
)
from tests.support.processes import gpus

NOW = 10_000.0


RULES = RulesOf(hang_seconds=60.0, relaunch_pause_seconds=10.0)


def fleet(*hosts: str, back: int = 1, number_of_gpus: int = 0, **more: str) -> Snapshot:
    """An engine of m on each of these hosts, in order, and hosts that have none."""
    names = {*hosts, *(f"back{n}" for n in range(back))}
    places = {f"m-{n}": host for n, host in enumerate(hosts)} | {
        name.replace("_", "-"): host for name, host in more.items()
    }
    engines, wishes, used = {}, {}, dict.fromkeys(names, 0)
    for name, host in places.items():
        model = name.partition("-")[0]
        uuids = (f"GPU-{used[host]}",) if number_of_gpus else ()
        used[host] += 1
        since = NOW - QUIET_SECONDS
        engines[name] = EngineReport(
            *(name, model, host, EngineState.READY, 1), since=since, alive_at=NOW
        )
        wishes[name] = Wish(EngineSpec(name, model, host, uuids=uuids))
    specs = tuple(
        ModelSpec(
            *(model, Kind.COMPLETION, "/m", "sglang", int(bool(number_of_gpus))),
            min_engines=sum(w.spec.model == model for w in wishes.values()),
        )
        for model in sorted({wish.spec.model for wish in wishes.values()})
    )
    reported = tuple(Host(name, gpus(number_of_gpus)) for name in sorted(names))
    return Snapshot(specs, (), reported, engines, wishes, {})


def moves(snapshot: Snapshot, now: float = NOW) -> list[tuple[str, str]]:
    return [(each.spec.id, each.spec.host) for each in even_out(snapshot, now)]


def test_one_engine_moves_to_a_host_that_is_back():
    assert moves(fleet("a", "a", "a")) == [("m-0", "back0")]
    assert moves(fleet("a", "a", number_of_gpus=8)) == [("m-0", "back0")]


def test_it_goes_on_until_no_host_has_two_more_than_another():
    snapshot, moved = fleet(*"aaaaaaaa", *"bbbbbbbb", number_of_gpus=8), 0
    while actions := even_out(snapshot, NOW):
        (action,) = actions
        moved += 1
        spec = action.spec
        report = replace(snapshot.engines[spec.id], host=spec.host)
        snapshot = replace(
            snapshot,
            engines={**snapshot.engines, spec.id: report},
            wishes={**snapshot.wishes, spec.id: Wish(spec)},
        )
        assert moved < 20
    hosts = [wish.spec.host for wish in snapshot.wishes.values()]
    assert sorted(map(hosts.count, ("a", "b", "back0"))) == [5, 5, 6]


@pytest.mark.parametrize(
    "snapshot",
    [
        fleet("a", "b", back=0),
        fleet("a", "a", "b", back=0),
        fleet("a", n_0="a"),
        fleet("a", "a", number_of_gpus=8, back=0),
    ],
    ids=["even", "one more", "no other engine of its model", "one host"],
)
def test_what_is_even_or_would_be_missed_stays(snapshot: Snapshot):
    assert moves(snapshot) == []


@pytest.mark.parametrize(
    "change",
    [
        {"since": NOW - QUIET_SECONDS + 1},
        {"state": EngineState.STARTING},
        {"host": "back0"},
    ],
)
def test_nothing_moves_before_all_have_served_for_a_while(change: dict[str, object]):
    snapshot = fleet("a", "a", "a")
    report = replace(snapshot.engines["m-2"], **change)
    assert moves(replace(snapshot, engines={**snapshot.engines, "m-2": report})) == []


def test_pinned_and_moved_engines_stay():
    snapshot = fleet("a", "a", "a")
    pins = tuple(EngineSpec(f"m-{n}", "m", "a") for n in range(3))
    assert moves(replace(snapshot, pins=pins)) == []
    kept = {f"m-{n}": "a" for n in range(3)}
    assert moves(replace(snapshot, moved=kept)) == []


def test_a_host_without_room_gets_none():
    snapshot = fleet("a", "a", "a", number_of_gpus=4)
    full = tuple(
        Host(h.name, tuple(replace(g, free=0) for g in h.gpus))
        if h.name == "back0"
        else h
        for h in snapshot.hosts
    )
    assert moves(replace(snapshot, hosts=full)) == []


def test_the_move_is_not_taken_back_while_the_engine_still_serves():
    snapshot = fleet("a", "a", "a")
    (action,) = decide(snapshot, RULES, NOW)
    assert isinstance(action, Want)
    wishes = {**snapshot.wishes, **apply([action], snapshot.wishes, 1)}
    after = replace(snapshot, wishes={k: w for k, w in wishes.items() if w})
    assert find_returned(after, NOW) == ()
    assert decide(after, RULES, NOW) == ()


def test_what_operators_drain_is_left_where_it_is():
    snapshot = fleet("a", "a", "a")
    held = Wish(snapshot.wishes["m-2"].spec, hold="drained by ada", drained=True)
    snapshot = replace(
        snapshot,
        orders=(Order(DRAIN, "m-2", who="ada"),),
        wishes={**snapshot.wishes, "m-2": held},
    )
    assert decide(snapshot, RULES, NOW) == ()


def test_an_engine_that_is_moved_goes_and_stays():
    snapshot = replace(fleet("a", "a"), orders=(Order(MOVE, "m-1", host="back0"),))
    (action,) = decide(snapshot, RULES, NOW)
    assert isinstance(action, Want)
    assert (action.spec.id, action.spec.host) == ("m-1", "back0")
