"""On which GPUs engines are placed, and what is said where they fit nowhere."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelserver.inventory import GIB, Gpu, GpuProcess, Host
from modelserver.policy.decide import apply
from modelserver.policy.placement.planning import PlacementPlan, plan
from modelserver.policy.snapshot import Snapshot
from modelserver.values import (
    EngineReport,
    EngineSpec,
    EngineState,
    Kind,
    ModelSpec,
    Wish,
    split_engine_id,
)

TOTAL = 80


def model(
    name: str, gpus: int = 1, gib: float = 0, share: bool = False, engines: int = 1
) -> ModelSpec:
    return ModelSpec(
        name,
        Kind.COMPLETION,
        "/m",
        "sglang",
        gpus=gpus,
        gpu_memory_gib=gib,
        share_gpu=share,
        min_engines=engines,
    )


def gpu(host: str, index: int, used: int = 0, engine: str = "", **more) -> Gpu:
    by = GpuProcess(4711, used * GIB, "anna", "python", engine)
    values = {
        "total": TOTAL * GIB,
        "used": used * GIB,
        "free": (TOTAL - used) * GIB,
        "processes": (by,) if used else (),
    }
    return Gpu(index, f"{host}{index}", **values | more)


def sliced(name: str, number: int) -> Host:
    """A host with one GPU that MIG divides into so many slices."""
    whole = gpu(name, 0)
    places = range(number)
    return Host(name, tuple(replace(whole, uuid=f"s{n}", mig=str(n)) for n in places))


def host(name: str, *used: int) -> Host:
    """A host with one GPU for each number, of which a stranger holds so many GiB."""
    return Host(name, tuple(gpu(name, index, each) for index, each in enumerate(used)))


def fleet(*models: ModelSpec, hosts, pins=(), wishes=(), engines=()) -> Snapshot:
    return Snapshot(
        specs=models,
        pins=tuple(pins),
        hosts=tuple(hosts),
        engines={each.id: each for each in engines},
        wishes={each.id: Wish(each) for each in wishes},
        loads={},
    )


def spec(engine: str, name: str, *uuids: str, **more) -> EngineSpec:
    return EngineSpec(engine, split_engine_id(engine)[0], name, uuids=uuids, **more)


def report(wish: EngineSpec, state: EngineState = EngineState.READY) -> EngineReport:
    return EngineReport(wish.id, wish.model, wish.host, state, incarnation=1)


def after(snapshot: Snapshot) -> dict[str, EngineSpec]:
    wishes = {**snapshot.wishes, **apply(plan(snapshot).actions, snapshot.wishes, 1)}
    return {engine: wish.spec for engine, wish in wishes.items() if wish}


def gpus_of(snapshot: Snapshot) -> dict[str, str]:
    return {name: " ".join(each.uuids) for name, each in after(snapshot).items()}


def waiting(snapshot: Snapshot) -> dict[str, str]:
    return dict(plan(snapshot).waiting)


def test_a_group_is_on_one_host() -> None:
    hosts = [host("a", 0, 0, 0), host("b", 0, 0, 0, 0)]
    assert gpus_of(fleet(model("m", 4), hosts=hosts)) == {"m-0": "b0 b1 b2 b3"}


def test_gpus_of_two_hosts_make_no_group() -> None:
    hosts = [host("a", 0), host("b", 0)]
    assert waiting(fleet(model("m", 2), hosts=hosts)) == {
        "m-0": "needs 2 free GPUs; host a: 1 of 1 GPU fits; host b: 1 of 1 GPU fits"
    }


def test_memory_of_strangers_is_not_free() -> None:
    hosts = [host("a", 66, 0), host("b", 20, 10)]
    found = fleet(model("m", 2, gib=60), hosts=hosts)
    assert gpus_of(found) == {"m-0": "b0 b1"}


def test_the_reason_names_who_has_the_memory() -> None:
    found = fleet(model("m", 2, gib=70), hosts=[host("a", 66, 0), Host("b")])
    assert waiting(found) == {
        "m-0": "needs 2 GPUs with 70 GiB free; host a: 1 of 2 GPUs fits, gpu 0 has 14 "
        "GiB free: 66 GiB held by pid 4711 python (anna); host b has no GPUs"
    }


def test_a_reason_names_few_hosts_and_gpus() -> None:
    hosts = [host(f"h{number}", *[66] * 8) for number in range(9)]
    reason = waiting(fleet(model("m"), hosts=hosts))["m-0"]
    assert reason.count("host h") == 3
    assert reason.count("gpu ") == 12
    assert reason.endswith("and 4 more; and 6 more hosts")


def test_a_whole_gpu_is_one_of_which_nobody_has_much() -> None:
    found = fleet(model("m"), hosts=[host("a", 13, 12)])
    assert gpus_of(found) == {"m-0": "a1"}


def test_a_faulty_gpu_is_never_used() -> None:
    bad = replace(gpu("a", 0), fault="XID 79, fallen off the bus")
    found = fleet(model("m", gib=1, share=True), hosts=[Host("a", (bad,))])
    assert after(found) == {}
    assert waiting(found)["m-0"] == (
        "needs 1 GPU with 1 GiB free; host a: gpu 0 is faulty: XID 79, fallen off the "
        "bus"
    )


def test_a_gpu_that_does_not_answer_is_not_used() -> None:
    silent = Gpu(0, "a0", missing={"memory": "Not Supported"})
    found = fleet(model("m"), hosts=[Host("a", (silent,))])
    assert "gpu 0 does not answer (Not Supported)" in waiting(found)["m-0"]


def test_engines_of_a_model_are_spread_over_hosts() -> None:
    hosts = [host("a", 0, 0), host("b", 0, 0)]
    assert gpus_of(fleet(model("m", engines=2), hosts=hosts)) == {
        "m-0": "a0",
        "m-1": "b0",
    }


def test_an_engine_that_was_wished_without_gpus_keeps_those_it_uses() -> None:
    wish = spec("m-0", "a")
    runs = replace(report(wish), gpus=(0,))
    found = fleet(
        model("m", engines=2), hosts=[host("a", 0, 0)], wishes=[wish], engines=[runs]
    )
    assert gpus_of(found) == {"m-0": "", "m-1": "a1"}


def test_an_engine_whose_host_is_away_is_expected_there() -> None:
    wish = spec("m-0", "away", "x0")
    found = fleet(
        model("m"),
        hosts=[host("a", 0)],
        pins=[replace(wish, uuids=())],
        wishes=[wish],
        engines=[report(wish)],
    )
    assert after(found)["m-0"].host == "away"


def test_a_small_model_takes_the_host_that_is_broken_up_already() -> None:
    hosts = [host("a", 0, 0, 0, 0), host("b", 0, 0, 0, 66)]
    found = fleet(model("small"), model("big", 4), hosts=hosts)
    assert gpus_of(found) == {"big-0": "a0 a1 a2 a3", "small-0": "b0"}
    assert gpus_of(fleet(model("small"), hosts=hosts)) == {"small-0": "b0"}


def test_big_needs_come_first_whatever_their_place_in_the_file() -> None:
    found = fleet(model("small", engines=2), model("big", 2), hosts=[host("a", 0, 0)])
    assert gpus_of(found) == {"big-0": "a0 a1"}
    assert waiting(found)["small-0"] == (
        "needs 1 free GPU; host a: gpu 0 has engine big-0, gpu 1 has engine big-0"
    )


def test_sharing_engines_pack_onto_the_fullest_gpu_that_fits() -> None:
    models = [model(name, gib=20, share=True) for name in "xyz"]
    found = fleet(*models, hosts=[host("a", 0, 30, 70)])
    assert gpus_of(found) == {"x-0": "a1", "y-0": "a1", "z-0": "a0"}


def test_no_more_is_promised_than_is_free() -> None:
    found = fleet(model("m", gib=30, share=True, engines=3), hosts=[host("a", 0)])
    assert len(after(found)) == 2
    assert waiting(found)["m-2"] == (
        "needs 1 GPU with 30 GiB free; host a: gpu 0 has 20 GiB free: 30 GiB promised "
        "to engine m-0, 30 GiB promised to engine m-1"
    )


def test_who_does_not_share_has_its_gpu_alone() -> None:
    models = [model("x", gib=20), model("y", gib=20, share=True)]
    found = fleet(*models, hosts=[host("a", 0)])
    assert gpus_of(found) == {"x-0": "a0"}


def test_a_running_engine_counts_with_the_greater_of_promise_and_what_it_holds() -> (
    None
):
    first = spec("x-0", "a", "a0")
    models = [model("x", gib=30, share=True), model("y", gib=40, share=True)]
    for holds, fits in ((25, True), (30, True), (41, False)):
        here = Host("a", (gpu("a", 0, holds, engine="x-0"),))
        found = fleet(*models, hosts=[here], wishes=[first], engines=[report(first)])
        assert ("y-0" in after(found)) is fits, holds


@pytest.mark.parametrize(
    "state", [EngineState.STARTING, EngineState.READY, EngineState.DRAINING]
)
def test_what_has_been_started_does_not_move(state: EngineState) -> None:
    wish = spec("m-0", "a", "a0")
    hosts = [host("a", 79), host("b", 0)]
    found = fleet(model("m"), hosts=hosts, wishes=[wish], engines=[report(wish, state)])
    assert plan(found) == PlacementPlan(())


@pytest.mark.parametrize("state", [EngineState.PENDING, EngineState.BACKOFF])
def test_what_has_not_is_placed_anew_if_its_gpu_is_taken(state: EngineState) -> None:
    wish = spec("m-0", "a", "a0")
    hosts = [host("a", 79), host("b", 0)]
    found = fleet(model("m"), hosts=hosts, wishes=[wish], engines=[report(wish, state)])
    assert gpus_of(found) == {"m-0": "b0"}


def test_an_engine_whose_gpu_is_taken_prefers_its_host() -> None:
    wish = spec("m-0", "b", "b0")
    hosts = [host("a", 0, 0), host("b", 79, 0)]
    found = fleet(model("m"), hosts=hosts, wishes=[wish])
    assert gpus_of(found) == {"m-0": "b1"}


def test_an_engine_whose_gpu_is_taken_and_that_fits_nowhere_waits_without_one() -> None:
    wish = spec("m-0", "a", "a0")
    found = fleet(model("m"), hosts=[host("a", 79)], wishes=[wish])
    assert after(found) == {"m-0": spec("m-0", "a")}
    assert "gpu 0 has 1 GiB free" in waiting(found)["m-0"]


def test_an_engine_that_has_died_finds_its_own_memory_free() -> None:
    wish = spec("m-0", "a", "a0")
    here = Host("a", (gpu("a", 0, 70, engine="m-0"),))
    died = report(wish, EngineState.BACKOFF)
    found = fleet(model("m"), hosts=[here], wishes=[wish], engines=[died])
    assert plan(found) == PlacementPlan(())


def test_engines_of_a_lost_host_are_placed_where_there_is_room() -> None:
    wishes = [spec("m-0", "lost", "x0"), spec("m-1", "lost", "x1")]
    found = fleet(model("m", engines=2), hosts=[host("a", 0)], wishes=wishes)
    assert gpus_of(found) == {"m-0": "a0", "m-1": "x1"}
    assert waiting(found) == {
        "m-1": "the launcher of host lost does not report; needs 1 free GPU; host a: "
        "gpu 0 has engine m-0"
    }


def test_a_running_engine_goes_on_if_the_changed_fleet_has_no_place_for_it() -> None:
    wish = spec("m-0", "a", "a0")
    here = Host("a", (gpu("a", 0, 70, engine="m-0"),))
    found = fleet(model("m", 8), hosts=[here], wishes=[wish], engines=[report(wish)])
    assert after(found) == {"m-0": wish}
    assert waiting(found)["m-0"].startswith("needs 8 free GPUs; host a: ")


def test_a_running_engine_that_shall_have_more_gpus_keeps_its_own_among_them() -> None:
    wish = spec("m-0", "a", "a0")
    here = Host("a", (gpu("a", 0, 70, engine="m-0"), gpu("a", 1)))
    found = fleet(model("m", 2), hosts=[here], wishes=[wish], engines=[report(wish)])
    assert gpus_of(found) == {"m-0": "a0 a1"}


def test_pinned_gpus_become_uuids_in_their_order() -> None:
    pin = EngineSpec("m-0", "m", "a", gpus=(1, 0))
    found = fleet(model("m", 2), hosts=[host("a", 0, 0)], pins=[pin])
    assert gpus_of(found) == {"m-0": "a1 a0"}


def test_a_pin_on_a_gpu_that_is_not_there_waits_for_it() -> None:
    pin = EngineSpec("m-0", "m", "a", gpus=(7,))
    found = fleet(model("m"), hosts=[host("a", 0, 0)], pins=[pin])
    assert waiting(found) == {"m-0": "gpu 7 is pinned, and host a has 2 GPUs"}


def test_a_pin_on_a_gpu_of_somebody_else_keeps_its_place_and_says_why_it_waits() -> (
    None
):
    pin = EngineSpec("m-0", "m", "a", gpus=(0,))
    found = fleet(model("m"), hosts=[host("a", 66), host("b", 0)], pins=[pin])
    assert gpus_of(found) == {"m-0": "a0"}
    assert waiting(found) == {
        "m-0": "needs 1 free GPU; host a: gpu 0 has 14 GiB free: 66 GiB held by pid "
        "4711 python (anna)"
    }


def test_a_pin_to_a_host_takes_the_gpus_that_suit_best() -> None:
    pin = EngineSpec("m-0", "m", "a")
    found = fleet(model("m"), hosts=[host("a", 66, 0), host("b", 0)], pins=[pin])
    assert gpus_of(found) == {"m-0": "a1"}


def test_a_pin_of_gpus_without_a_host_finds_one_where_they_are_free() -> None:
    pin = EngineSpec("m-0", "m", "", gpus=(1,))
    found = fleet(model("m"), hosts=[host("a", 0, 66), host("b", 0, 0)], pins=[pin])
    assert gpus_of(found) == {"m-0": "b1"}


def test_a_slice_of_a_gpu_serves_one_engine_and_no_group() -> None:
    here = sliced("a", 2)
    assert gpus_of(fleet(model("m", engines=2), hosts=[here])) == {
        "m-0": "s0",
        "m-1": "s1",
    }
    assert (
        "gpu 0 slice 0 is a MIG slice"
        in waiting(fleet(model("m", 2), hosts=[here]))["m-0"]
    )


def test_a_pin_on_a_gpu_that_mig_divides_says_so() -> None:
    here = sliced("a", 2)
    pin = EngineSpec("m-0", "m", "a", gpus=(0,))
    assert waiting(fleet(model("m"), hosts=[here], pins=[pin])) == {
        "m-0": "gpu 0 is pinned, and MIG divides it into 2 slices; leave gpus out"
    }


def test_without_a_launcher_the_reason_is_that() -> None:
    assert waiting(fleet(model("m"), hosts=[])) == {
        "m-0": "no launcher reports; start one on each host with engines"
    }


# Whatever the fleet.

STATES = st.sampled_from(
    [None, EngineState.PENDING, EngineState.STARTING, EngineState.READY]
)


@st.composite
def fleets(draw: st.DrawFn) -> Snapshot:
    models = [
        model(
            name,
            gpus=draw(st.sampled_from([1, 1, 2, 4])),
            gib=(gib := draw(st.sampled_from([0, 10, 30, 70]))),
            share=bool(gib) and draw(st.booleans()),
            engines=draw(st.integers(0, 3)),
        )
        for name in "xyz"
    ]
    hosts = [draw(_host(name)) for name in "abc"[: draw(st.integers(0, 3))]]
    empty = fleet(*models, hosts=hosts)
    if not draw(st.booleans()):
        return empty
    # What a run before this one decided; some of it has been started since.
    wishes = after(replace(empty, hosts=tuple(_emptied(each) for each in hosts)))
    states = {engine: draw(STATES) for engine in wishes}
    engines = [report(wishes[name], state) for name, state in states.items() if state]
    return fleet(*models, hosts=hosts, wishes=wishes.values(), engines=engines)


@st.composite
def _host(draw: st.DrawFn, name: str) -> Host:
    gpus = []
    for index in range(draw(st.integers(0, 4))):
        used = draw(st.sampled_from([0, 0, 5, 30, 79]))
        fault = draw(st.sampled_from(["", "", "", "lost"]))
        gpus.append(gpu(name, index, used, fault=fault))
    return Host(name, tuple(gpus))


def _emptied(each: Host) -> Host:
    return Host(each.name, tuple(gpu(each.name, g.index) for g in each.gpus))


def started(snapshot: Snapshot) -> set[str]:
    settled = (EngineState.STARTING, EngineState.READY)
    return {name for name, each in snapshot.engines.items() if each.state in settled}


def placed(snapshot: Snapshot) -> dict[str, EngineSpec]:
    """The engines that have a place by now and had not been started before."""
    without = plan(snapshot).waiting.keys() | started(snapshot)
    return {name: s for name, s in after(snapshot).items() if name not in without}


@given(fleets())
def test_never_more_is_promised_of_a_gpu_than_is_free(snapshot: Snapshot) -> None:
    needs = {each.name: each for each in snapshot.specs}
    every = {**{n: snapshot.wishes[n].spec for n in started(snapshot)}}
    gpus = {each.uuid: each for at in snapshot.hosts for each in at.gpus}
    new = placed(snapshot)
    promised: Counter[str] = Counter()
    for each in (*every.values(), *new.values()):
        for uuid in each.uuids:
            promised[uuid] += int(needs[each.model].gpu_memory_gib * GIB) or (
                gpus[uuid].free
            )
    for each in new.values():
        for uuid in each.uuids:
            assert promised[uuid] <= gpus[uuid].free


@given(fleets())
def test_a_faulty_gpu_is_given_to_nobody(snapshot: Snapshot) -> None:
    faulty = {g.uuid for at in snapshot.hosts for g in at.gpus if g.fault}
    for each in placed(snapshot).values():
        assert not faulty & set(each.uuids)


@given(fleets())
def test_every_group_is_complete_and_on_the_host_of_its_wish(
    snapshot: Snapshot,
) -> None:
    needs = {each.name: each.gpus for each in snapshot.specs}
    for each in placed(snapshot).values():
        assert len(set(each.uuids)) == needs[each.model]
        assert {uuid[0] for uuid in each.uuids} == {each.host}


@given(fleets())
def test_who_does_not_share_is_alone(snapshot: Snapshot) -> None:
    shares = {each.name: each.share_gpu for each in snapshot.specs}
    specs = {**{n: snapshot.wishes[n].spec for n in started(snapshot)}}
    specs |= placed(snapshot)
    on = Counter(uuid for each in specs.values() for uuid in each.uuids)
    for each in placed(snapshot).values():
        if not shares[each.model]:
            assert all(on[uuid] == 1 for uuid in each.uuids)


@given(fleets())
def test_every_wanted_engine_is_placed_or_said_to_wait(snapshot: Snapshot) -> None:
    has = after(snapshot).keys() | plan(snapshot).waiting.keys()
    wanted = {f"{m.name}-{n}" for m in snapshot.specs for n in range(m.min_engines)}
    assert wanted <= has
    assert all(plan(snapshot).waiting.values())


@given(fleets())
def test_started_engines_keep_their_place(snapshot: Snapshot) -> None:
    wishes = after(snapshot)
    for name in started(snapshot):
        assert wishes[name] == snapshot.wishes[name].spec


@given(fleets(), st.randoms(use_true_random=False))
def test_the_same_fleet_gives_the_same_plan_in_any_order(snapshot, random) -> None:
    hosts = list(snapshot.hosts)
    random.shuffle(hosts)
    engines = dict(sorted(snapshot.engines.items(), reverse=True))
    assert plan(replace(snapshot, hosts=tuple(hosts), engines=engines)) == plan(
        snapshot
    )


@given(fleets())
def test_a_plan_that_is_carried_out_changes_nothing_more(snapshot: Snapshot) -> None:
    wishes = {name: Wish(each) for name, each in after(snapshot).items()}
    assert plan(replace(snapshot, wishes=wishes)).actions == ()
