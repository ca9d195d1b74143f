"""Engines that take several hosts get all of their places, or none."""

from dataclasses import replace

from modelserver.inventory import Host
from modelserver.policy.actions import Want
from modelserver.policy.decide import consider
from modelserver.policy.orders import DRAIN_HOST
from modelserver.policy.placement.needs import Need
from modelserver.policy.placement.nodes import find_best_places
from modelserver.policy.placement.rooms import HostRoom
from modelserver.policy.rebalance.candidates import donated_places, free_places
from modelserver.policy.rebalance.demand import view_of
from modelserver.policy.rebalance.scene import RebalanceScene
from modelserver.policy.rebalance.state import RebalanceMemory, RebalanceRules
from modelserver.policy.replay import RulesOf
from modelserver.policy.snapshot import Snapshot
from modelserver.values import (
    EngineReport,
    EngineSpec,
    EngineState,
    ModelSpec,
    NodePlace,
    NodeReport,
    Order,
)
from tests.support.placement import after, fleet, gpu, host, model, report, waiting

BACKOFF = EngineState.BACKOFF


def wide(gpus: int = 4, nodes: int = 2, engines: int = 1) -> ModelSpec:
    return replace(model("wide", gpus, engines=engines), nodes=nodes)


def places(snapshot: Snapshot) -> dict[str, list[str]]:
    """The GPUs of each engine, host by host."""
    return {
        name: [" ".join(place.uuids) for place in each.places]
        for name, each in after(snapshot).items()
    }


def placed(*hosts: str) -> EngineSpec:
    leader, *others = [NodePlace(name, (f"{name}0", f"{name}1")) for name in hosts]
    return EngineSpec(
        "wide-0", "wide", leader.host, uuids=leader.uuids, followers=tuple(others)
    )


A, B, C = host("a", 0, 0), host("b", 0, 0), host("c", 0, 0)
WISH = placed("a", "b")


def test_an_engine_gets_the_same_of_each_of_its_hosts():
    assert places(fleet(wide(), hosts=[A, B, C])) == {"wide-0": ["a0 a1", "b0 b1"]}
    assert after(fleet(wide(), hosts=[A, B]))["wide-0"] == WISH


def test_it_gets_nothing_where_one_host_lacks_room():
    full = host("b", 0, 70)
    snapshot = fleet(wide(), hosts=[A, full])
    assert after(snapshot) == {}
    assert waiting(snapshot)["wide-0"] == (
        "needs 2 free GPUs on each of 2 hosts; host a has room; host b: 1 of 2 GPUs "
        "fits, gpu 1 has 10 GiB free: 70 GiB held by pid 4711 python (anna)"
    )
    assert "host a has room" in waiting(fleet(wide(), hosts=[A]))["wide-0"]


def test_what_it_has_is_not_given_to_others():
    small = model("small", 1, engines=3)
    found = places(fleet(small, wide(), hosts=[A, B, C]))
    assert found["wide-0"] == ["a0 a1", "b0 b1"]
    assert {each for name in ("small-0", "small-1") for each in found[name]} == {
        "c0",
        "c1",
    }
    assert "small-2" not in found


def test_all_its_gpus_are_of_one_kind():
    other = Host("b", tuple(gpu("b", index, name="H200") for index in range(2)))
    snapshot = fleet(wide(), hosts=[A, other, C])
    assert places(snapshot) == {"wide-0": ["a0 a1", "c0 c1"]}
    assert after(fleet(wide(), hosts=[A, other])) == {}


def test_what_has_started_stays_though_a_node_is_silent():
    started = fleet(wide(), hosts=[A, C], wishes=[WISH], engines=[report(WISH)])
    assert after(started)["wide-0"] == WISH
    # It has ended with its node: then the whole engine goes where all have room.
    ended = fleet(wide(), hosts=[A, C], wishes=[WISH], engines=[report(WISH, BACKOFF)])
    assert after(ended)["wide-0"] == placed("a", "c")
    alone = fleet(wide(), hosts=[A], wishes=[WISH], engines=[report(WISH, BACKOFF)])
    assert after(alone)["wide-0"] == WISH
    assert waiting(alone)["wide-0"].startswith(
        "the launcher of host b does not report; needs 2 free GPUs on each of 2 hosts"
    )


def test_its_nodes_keep_their_gpus_while_its_leader_is_silent():
    small = model("small", 1, engines=2)
    loads = report(WISH, EngineState.STARTING)
    snapshot = fleet(small, wide(), hosts=[B, C], wishes=[WISH], engines=[loads])
    found = places(replace(snapshot, away={"wide-0": "host a is silent"}))
    assert found["wide-0"] == ["a0 a1", "b0 b1"]
    assert {*found["small-0"], *found["small-1"]} == {"c0", "c1"}


def test_what_other_hosts_offer_is_not_asked_for_a_pinned_engine():
    class Asked(HostRoom):
        def find_offers(self, need: Need, engine: str = ""):
            asked.append(self.name)
            return super().find_offers(need, engine)

    asked: list[str] = []
    rooms = [Asked(each) for each in (A, B, C)]
    assert find_best_places(Need(1), rooms, leader="b") == (NodePlace("b", ("b0",)),)
    assert asked == ["b"]


def decided(snapshot: Snapshot):
    return consider(snapshot, RulesOf(60.0, 10.0), now=100.0)


def test_a_drained_host_of_a_node_gives_the_engine_away_or_holds_it():
    drain = (Order(DRAIN_HOST, "b", "anna"),)
    serves = fleet(wide(), hosts=[A, B, C], wishes=[WISH], engines=[report(WISH)])
    (want,) = decided(replace(serves, orders=drain)).actions
    assert isinstance(want, Want)
    assert want.spec == placed("a", "c")
    tight = fleet(wide(), hosts=[A, B], wishes=[WISH], engines=[report(WISH)])
    decision = decided(replace(tight, orders=drain))
    (treat,) = decision.actions
    assert treat.hold == "host b is drained by anna"
    assert "host b is drained by anna" in decision.waiting["wide-0"]


def test_a_moved_one_is_led_from_the_host_that_it_moved_to():
    snapshot = replace(fleet(wide(), hosts=[A, B, C]), moved={"wide-0": "c"})
    assert after(snapshot)["wide-0"] == placed("c", "a")


def test_other_nodes_by_the_fleet_file_are_another_place():
    snapshot = fleet(wide(6, 3), hosts=[A, B, C], wishes=[WISH], engines=[report(WISH)])
    assert after(snapshot)["wide-0"] == placed("a", "b", "c")


def test_engines_without_gpus_take_hosts_only():
    spec = replace(wide(gpus=0), engine="command")
    found = after(fleet(spec, hosts=[Host("a"), Host("b")]))["wide-0"]
    assert [place.host for place in found.places] == ["a", "b"]
    assert waiting(fleet(spec, hosts=[Host("a")])) == {
        "wide-0": "needs 2 hosts; host a has room"
    }


def test_rebalancing_leaves_them_alone_and_knows_what_they_hold():
    small = replace(model("small", 1), max_engines=4)
    view = view_of(
        fleet(wide(), small, hosts=[A, B, C], wishes=[WISH], engines=[report(WISH)]),
        now=0.0,
    )
    scene = RebalanceScene(view, RebalanceMemory(), RebalanceRules(), 0.0)
    assert [each.uuids for each in free_places(scene, "small")] == [("c0",)]
    assert donated_places(scene, "small") == []


def test_a_store_that_lost_its_wishes_gets_them_back_from_reports():
    node = NodeReport("wide-0", 1, "b", EngineState.STARTING, gpus=(0, 1))
    told = EngineReport(
        *("wide-0", "wide", "a", EngineState.READY),
        incarnation=3,
        gpus=(0, 1),
        followers=(node,),
    )
    lost = fleet(wide(), hosts=[A, B, C], engines=[told])
    decision = decided(replace(lost, moves=RebalanceMemory()))
    assert [each.spec for each in decision.actions] == [WISH]
