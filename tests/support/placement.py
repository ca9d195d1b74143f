"""Fleets with simulated GPUs, for tests of placement."""

from dataclasses import replace

from modelserver.inventory import GIB, Gpu, GpuProcess, Host
from modelserver.policy.decide import apply
from modelserver.policy.placement.planning import plan
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
