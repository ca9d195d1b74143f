"""Which engines the fleet wants, and where."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelserver.inventory import Host
from modelserver.policy.actions import Drop, Want
from modelserver.policy.decide import apply
from modelserver.policy.placement.planning import plan
from modelserver.policy.snapshot import Snapshot
from modelserver.values import EngineSpec, Kind, ModelSpec, Wish, split_engine_id
from tests.support.processes import gpus


def model(name: str = "m", engines: int = 1, gpus: int = 0, engine: str = "sglang-cpu"):
    return ModelSpec(
        name, Kind.COMPLETION, "/m", engine, gpus=gpus, min_engines=engines
    )


def wish(engine: str, host: str, **place: object) -> Wish:
    return Wish(EngineSpec(engine, split_engine_id(engine)[0], host, **place))


def fleet(*models: ModelSpec, hosts=(), pins=(), wishes=()) -> Snapshot:
    wishes = {each.spec.id: each for each in wishes}
    return Snapshot(models, tuple(pins), tuple(hosts), {}, wishes, {})


def placed(snapshot: Snapshot) -> dict[str, str]:
    return {
        a.spec.id: a.spec.host for a in plan(snapshot).actions if isinstance(a, Want)
    }


A, B = Host("a", gpus=gpus(2)), Host("b", gpus=gpus(2))


def test_min_engines_are_spread_over_the_live_hosts():
    assert placed(fleet(model(engines=4), hosts=[A, B])) == {
        "m-0": "a",
        "m-1": "b",
        "m-2": "a",
        "m-3": "b",
    }


def test_without_a_live_host_no_engine_is_placed():
    assert plan(fleet(model())).actions == ()


def test_a_wish_whose_host_lives_stays_although_another_host_is_emptier():
    wishes = [wish("m-0", "a"), wish("m-1", "a")]
    assert plan(fleet(model(engines=2), hosts=[A, B], wishes=wishes)).actions == ()


def test_engines_of_a_dead_host_move_to_a_live_one():
    wishes = [wish("m-0", "dead"), wish("m-1", "a")]
    snapshot = fleet(model(engines=2), hosts=[A, B], wishes=wishes)
    assert placed(snapshot) == {"m-0": "b"}


def test_engines_of_a_dead_host_keep_their_wish_while_no_host_lives():
    assert plan(fleet(model(), wishes=[wish("m-0", "dead")])).actions == ()


def test_an_engine_that_needs_more_gpus_than_any_host_has_is_not_placed():
    assert plan(fleet(model(gpus=4), hosts=[A, B])).actions == ()


def test_gpus_that_other_engines_need_are_not_given_twice():
    snapshot = fleet(model(engines=3, gpus=2), hosts=[A, B])
    assert placed(snapshot) == {"m-0": "a", "m-1": "b"}


def test_an_engine_without_gpus_goes_to_a_host_whose_gpus_are_taken():
    snapshot = fleet(
        model("big", gpus=2),
        model(),
        hosts=[A],
        wishes=[wish("big-0", "a", uuids=("GPU-0", "GPU-1"))],
    )
    assert placed(snapshot) == {"m-0": "a"}


def test_an_engine_that_no_longer_fits_its_host_moves():
    snapshot = fleet(
        model(engines=2, gpus=1),
        hosts=[Host("a", gpus=gpus(1)), B],
        wishes=[wish(f"m-{n}", "a", uuids=("GPU-0",)) for n in range(2)],
    )
    assert placed(snapshot) == {"m-1": "b"}


def test_a_pin_is_wanted_on_its_host_before_that_host_lives():
    pin = EngineSpec("m-0", "m", "later", gpus=(0, 1), port=8001)
    assert plan(fleet(model(), hosts=[A], pins=[pin])).actions == (Want(pin),)


def test_a_pin_counts_towards_min_engines_and_its_gpus_are_taken():
    pin = EngineSpec("m-0", "m", "a", gpus=(0, 1))
    snapshot = fleet(model(engines=2, gpus=2), hosts=[A, B], pins=[pin])
    assert placed(snapshot) == {"m-0": "a", "m-1": "b"}


def test_a_pin_without_a_host_goes_to_a_live_one_and_stays():
    pin = EngineSpec("m-0", "m", "", port=8001)
    assert placed(fleet(model(), hosts=[B], pins=[pin])) == {"m-0": "b"}
    wishes = [wish("m-0", "b", port=8001)]
    assert plan(fleet(model(), hosts=[A, B], pins=[pin], wishes=wishes)).actions == ()


def test_a_pin_that_changes_is_wished_anew():
    pin = EngineSpec("m-0", "m", "a", port=8002)
    snapshot = fleet(
        model(), hosts=[A], pins=[pin], wishes=[wish("m-0", "a", port=8001)]
    )
    assert plan(snapshot).actions == (Want(pin),)


def test_an_external_engine_needs_any_live_host_and_no_gpu():
    pin = EngineSpec("m-0", "m", "", url="http://far:1")
    snapshot = fleet(
        model(engine="external", gpus=8, engines=3), hosts=[Host("a")], pins=[pin]
    )
    assert placed(snapshot) == {"m-0": "a"}


def test_a_model_that_left_the_fleet_loses_its_engines():
    snapshot = fleet(hosts=[A], wishes=[wish("gone-0", "a")])
    assert plan(snapshot).actions == (Drop("gone-0", "model gone left the fleet"),)


def test_fewer_min_engines_drop_the_last_ones():
    wishes = [wish("m-0", "a"), wish("m-1", "b")]
    snapshot = fleet(model(), hosts=[A, B], wishes=wishes)
    assert plan(snapshot).actions == (Drop("m-1", "model m wants fewer engines"),)


def test_no_engines_at_all_are_a_number_too():
    snapshot = fleet(model(engines=0), hosts=[A], wishes=[wish("m-0", "a")])
    assert plan(snapshot).actions == (Drop("m-0", "model m wants fewer engines"),)


HOSTS = st.sampled_from(["a", "b", "c", "d"])
ENGINES = st.builds("{}-{}".format, st.sampled_from("xyz"), st.integers(0, 3))


@st.composite
def fleets(draw: st.DrawFn) -> Snapshot:
    models = [
        model(name, draw(st.integers(0, 4)), draw(st.integers(0, 2)))
        for name in sorted(draw(st.sets(st.sampled_from("xyz"))))
    ]
    pins = [
        EngineSpec(f"{each.name}-{n}", each.name, draw(st.just("") | HOSTS))
        for each in models
        for n in range(draw(st.integers(0, 2)))
    ]
    hosts = [Host(name, gpus(draw(st.integers(0, 4)))) for name in draw(st.sets(HOSTS))]
    wishes = draw(st.dictionaries(ENGINES, HOSTS))
    wishes = [wish(engine, host) for engine, host in wishes.items()]
    return fleet(*models, hosts=hosts, pins=pins, wishes=wishes)


def after(snapshot: Snapshot) -> Mapping[str, Wish]:
    changes = apply(plan(snapshot).actions, snapshot.wishes, token=1)
    wishes = {**snapshot.wishes, **changes}
    return {engine: wish for engine, wish in wishes.items() if wish}


@given(fleets())
def test_placement_applied_to_its_own_outcome_changes_nothing(snapshot: Snapshot):
    settled = Snapshot(
        snapshot.specs, snapshot.pins, snapshot.hosts, {}, after(snapshot), {}
    )
    assert plan(settled).actions == ()


@given(fleets())
def test_new_engines_never_need_more_gpus_than_their_host_has(snapshot: Snapshot):
    needs = {each.name: each.gpus for each in snapshot.specs}
    pinned = {pin.id for pin in snapshot.pins if pin.host}
    hosts = {host.name: len(host.gpus) for host in snapshot.hosts}
    for engine, host in placed(snapshot).items():
        if engine not in pinned:
            total = needs[split_engine_id(engine)[0]]
            assert total <= hosts[host]


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_in_which_hosts_report_plays_no_part(order: int):
    assert placed(fleet(model(), hosts=[A, B][::order])) == {"m-0": "a"}
