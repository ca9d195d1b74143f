"""What holds of a placement whatever the fleet."""

from collections import Counter
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelserver.inventory import GIB, Host
from modelserver.policy.placement.planning import plan
from modelserver.policy.snapshot import Snapshot
from modelserver.values import (
    EngineSpec,
    EngineState,
    Wish,
)
from tests.support.placement import (
    after,
    fleet,
    gpu,
    model,
    report,
)

#: How long a fleet takes to be made depends on the machine, as plans are made for it.
whatever_the_machine = settings(
    suppress_health_check=[HealthCheck.too_slow], deadline=None
)
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
        kind = "A10" if index % 3 == 2 else "H100"
        gpus.append(gpu(name, index, used, fault=fault, name=kind))
    return Host(name, tuple(gpus))


def _emptied(each: Host) -> Host:
    gpus = (gpu(each.name, g.index, name=g.name) for g in each.gpus)
    return Host(each.name, tuple(gpus))


def started(snapshot: Snapshot) -> set[str]:
    settled = (EngineState.STARTING, EngineState.READY)
    return {name for name, each in snapshot.engines.items() if each.state in settled}


def placed(snapshot: Snapshot) -> dict[str, EngineSpec]:
    """The engines that have a place by now and had not been started before."""
    without = plan(snapshot).waiting.keys() | started(snapshot)
    return {name: s for name, s in after(snapshot).items() if name not in without}


@whatever_the_machine
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


@whatever_the_machine
@given(fleets())
def test_a_faulty_gpu_is_given_to_nobody(snapshot: Snapshot) -> None:
    faulty = {g.uuid for at in snapshot.hosts for g in at.gpus if g.fault}
    for each in placed(snapshot).values():
        assert not faulty & set(each.uuids)


@whatever_the_machine
@given(fleets())
def test_every_group_is_complete_and_on_the_host_of_its_wish(
    snapshot: Snapshot,
) -> None:
    needs = {each.name: each.gpus for each in snapshot.specs}
    kinds = {each.uuid: each.name for at in snapshot.hosts for each in at.gpus}
    for each in placed(snapshot).values():
        assert len(set(each.uuids)) == needs[each.model]
        assert {uuid[0] for uuid in each.uuids} == {each.host}
        assert len({kinds[uuid] for uuid in each.uuids}) == 1


@whatever_the_machine
@given(fleets())
def test_who_does_not_share_is_alone(snapshot: Snapshot) -> None:
    shares = {each.name: each.share_gpu for each in snapshot.specs}
    specs = {**{n: snapshot.wishes[n].spec for n in started(snapshot)}}
    specs |= placed(snapshot)
    on = Counter(uuid for each in specs.values() for uuid in each.uuids)
    for each in placed(snapshot).values():
        if not shares[each.model]:
            assert all(on[uuid] == 1 for uuid in each.uuids)


@whatever_the_machine
@given(fleets())
def test_every_wanted_engine_is_placed_or_said_to_wait(snapshot: Snapshot) -> None:
    has = after(snapshot).keys() | plan(snapshot).waiting.keys()
    wanted = {f"{m.name}-{n}" for m in snapshot.specs for n in range(m.min_engines)}
    assert wanted <= has
    assert all(plan(snapshot).waiting.values())


@whatever_the_machine
@given(fleets())
def test_started_engines_keep_their_place(snapshot: Snapshot) -> None:
    wishes = after(snapshot)
    for name in started(snapshot):
        assert wishes[name] == snapshot.wishes[name].spec


@whatever_the_machine
@given(fleets(), st.randoms(use_true_random=False))
def test_the_same_fleet_gives_the_same_plan_in_any_order(snapshot, random) -> None:
    hosts = list(snapshot.hosts)
    random.shuffle(hosts)
    engines = dict(sorted(snapshot.engines.items(), reverse=True))
    assert plan(replace(snapshot, hosts=tuple(hosts), engines=engines)) == plan(
        snapshot
    )


@whatever_the_machine
@given(fleets())
def test_a_plan_that_is_carried_out_changes_nothing_more(snapshot: Snapshot) -> None:
    wishes = {name: Wish(each) for name, each in after(snapshot).items()}
    assert plan(replace(snapshot, wishes=wishes)).actions == ()
