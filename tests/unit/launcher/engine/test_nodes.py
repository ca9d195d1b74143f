"""What a leader makes of its other nodes, and what of a wish for them is obeyed."""

from dataclasses import replace
from typing import Any

import pytest

from launcher.engine.nodes import (
    LOST_SECONDS,
    NodeWatch,
    arrange_meeting,
    find_meeting_port,
    find_node_contradiction,
)
from launcher.engine_types.base import Meeting
from launcher.store_link import StoreView
from modelserver.policy.lifecycle import CannotHeal, Died, DrainAsked
from modelserver.values import (
    EngineReport,
    EngineSpec,
    EngineState,
    Kind,
    ModelSpec,
    NodePlace,
    NodeReport,
)

SPEC = EngineSpec("m-0", "m", "a", followers=(NodePlace("b", ("GPU-1",)),))
MODEL = ModelSpec("m", Kind.COMPLETION, "/m", "sglang", gpus=2, nodes=2)
READY, PENDING, STARTING = (
    EngineState.READY,
    EngineState.PENDING,
    EngineState.STARTING,
)


def node(state: EngineState, incarnation: int = 0, reason: str = "") -> NodeReport:
    return NodeReport(
        "m-0", 1, "b", state, incarnation, uuids=("GPU-1",), reason=reason
    )


def view(*nodes: NodeReport, hosts: tuple[str, ...] = ("a", "b"), at: float = 0.0):
    found = {(each.engine, each.node): each for each in nodes}
    return StoreView(hosts=frozenset(hosts), nodes=found, read_at=at)


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (view(node(PENDING)), ""),
        (view(node(PENDING), hosts=("a",)), "host b, whose launcher does not report"),
        (view(), "waits for node 1 on host b"),
        (view(replace(node(PENDING), host="c")), "waits for node 1 on host b"),
        (view(replace(node(PENDING), uuids=())), "waits for node 1 on host b"),
        (view(node(STARTING, 1)), "waits until node 1 on host b has ended"),
        (view(node(PENDING, 0, "gpu 0 is taken")), "node 1 on host b: gpu 0 is taken"),
    ],
)
def test_it_starts_when_all_can(seen: StoreView, said: str):
    told = NodeWatch().find_obstacle(SPEC, MODEL, seen)
    assert said in told
    assert bool(said) == bool(told)


def test_it_waits_for_all_of_its_hosts():
    alone = replace(SPEC, followers=())
    told = NodeWatch().find_obstacle(alone, MODEL, view())
    assert told == "control has found no 2 hosts with room for it yet"
    assert NodeWatch().find_obstacle(alone, replace(MODEL, nodes=1), view()) == ""


def ends(watch: NodeWatch, seen: StoreView, alive_at: float = 0.0, now: float = 0.0):
    return watch.find_end(SPEC, 2, seen, alive_at, now)


def test_a_node_that_ended_ends_the_engine():
    watch = NodeWatch()
    # It has not heard yet that the second incarnation begins.
    assert ends(watch, view(node(PENDING, 1))) is None
    assert ends(watch, view(node(STARTING, 2))) is None
    died = view(node(EngineState.BACKOFF, 2, "killed"))
    assert ends(watch, died) == Died("node 1 on host b ended: killed")
    fatal = view(node(EngineState.FATAL, 2, "not installed"))
    assert isinstance(ends(watch, fatal), CannotHeal)
    leaves = view(node(EngineState.DRAINING, 2, "its launcher ends"))
    assert isinstance(ends(watch, leaves), DrainAsked)


@pytest.mark.parametrize("seen", [view(), view(node(PENDING, 2))])
def test_a_node_that_took_part_and_is_gone_ends_the_engine(seen: StoreView):
    watch = NodeWatch()
    assert ends(watch, view(node(STARTING, 2))) is None
    assert ends(watch, seen) == Died("node 1 on host b is gone", may_heal=True)
    watch.begin()
    assert ends(watch, view(node(PENDING, 1))) is None


def test_a_silent_host_is_lost_where_no_token_comes():
    over = LOST_SECONDS + 2
    silent, later = view(hosts=("a",)), view(hosts=("a",), at=over)
    watch = NodeWatch()
    assert ends(watch, silent, alive_at=0.0, now=1.0) is None
    # Its launcher is restarted, and the engine serves on.
    assert ends(watch, later, alive_at=9.0, now=over) is None
    lost = Died("host b of its node 1 is lost", may_heal=True)
    assert ends(watch, later, alive_at=0.0, now=over) == lost


def test_a_store_that_is_away_says_nothing_of_hosts():
    watch, over = NodeWatch(), LOST_SECONDS + 2
    assert ends(watch, view(hosts=("a",)), now=1.0) is None
    assert ends(watch, view(hosts=("a",)), now=over) is None
    assert ends(watch, view(hosts=("a",), at=over), now=over) is None


def test_a_start_says_which_node_it_waits_for():
    watch = NodeWatch()
    told = EngineReport("m-0", "m", "a", STARTING, reason="nothing listens")
    waits = watch.with_followers(told, SPEC, view(node(PENDING)))
    assert waits.reason == "waits for node 1 on host b to start"
    assert waits.followers == (node(PENDING),)
    ends(watch, view(node(STARTING, 2)))
    joined = watch.with_followers(told, SPEC, view(node(STARTING, 2)))
    assert joined.reason == "nothing listens"


ADDRESSES = {"a": "127.0.0.1", "b": "127.0.0.1", "c": ""}


@pytest.mark.parametrize(
    ("followers", "said"),
    [
        ((NodePlace("b"),), ""),
        ((), ""),
        ((NodePlace("b"), NodePlace("c")), "places on 3 hosts, and nodes = 2"),
        ((NodePlace("c"),), "gives host 'c' no address"),
        ((NodePlace("evil"),), "gives host 'evil' no address"),
        ((NodePlace(["b"]),), "gives host ['b'] no address"),  # type: ignore[arg-type]
        ((NodePlace("b", (7,)),), "it has no GPUs (7,)"),  # type: ignore[arg-type]
        ((NodePlace("a"),), "two of its nodes are on one host"),
    ],
)
def test_a_wish_chooses_among_the_hosts_of_the_fleet(followers: Any, said: str):
    told = find_node_contradiction(replace(SPEC, followers=followers), MODEL, ADDRESSES)
    assert said in told
    assert bool(said) == bool(told)


@pytest.mark.parametrize("port", ["21000; touch /tmp/x", 80, True, 21000.5, None])
def test_a_port_that_no_launcher_would_choose_is_none(port: Any):
    leader = EngineReport("m-0", "m", "a", READY, meeting_port=21000)
    assert find_meeting_port(leader) == 21000
    assert find_meeting_port(replace(leader, meeting_port=port)) == 0


def test_ranks_meet_at_the_leaders_address_in_the_fleet():
    met = Meeting(1, 2, "127.0.0.1", 21000, "127.0.0.1", "lo")
    assert arrange_meeting(SPEC, 1, 21000, ADDRESSES) == met
    assert str(met) == "127.0.0.1:21000"
    assert str(replace(met, leader="fd00::7")) == "[fd00::7]:21000"
    alone = replace(SPEC, followers=())
    assert arrange_meeting(alone, 0, 0, ADDRESSES) is None


@pytest.mark.parametrize(
    ("addresses", "said"),
    [
        ({"a": "127.0.0.1"}, "host b has no address in [[hosts]]"),
        ({"b": "127.0.0.1"}, "host a has no address in [[hosts]]"),
        (
            {"a": "127.0.0.1", "b": "192.0.2.7"},
            "no interface of host b has 192.0.2.7, its address in [[hosts]]",
        ),
    ],
)
def test_ranks_without_an_address_cannot_meet(addresses: dict[str, str], said: str):
    assert arrange_meeting(SPEC, 1, 21000, addresses) == said
