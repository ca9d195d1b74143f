"""Two models with their engines on one host, for tests of what moves between them."""

from dataclasses import replace

from modelserver.inventory import GIB, GpuProcess, Host
from modelserver.policy.rebalance.deciding import rebalance
from modelserver.policy.rebalance.state import (
    EngineView,
    Meter,
    ModelView,
    RebalanceMemory,
    RebalanceOutcome,
    RebalanceRules,
    RebalanceView,
)
from modelserver.values import EngineState, ModelSpec
from tests.scenarios.moves_world import model
from tests.support import processes

NOW = 10_000.0
RULES = RebalanceRules()
READY = EngineState.READY
#: Watched for long, measured, nothing to do for a while.
KNOWN = Meter(observed=3000.0, capacity=2.0, quiet_since=NOW - 300)
BUSY = replace(KNOWN, quiet_since=None, arrivals=1.0, recent=1.0)
HOT = replace(BUSY, arrivals=9.0, recent=9.0, hot_ticks=2)


def engines(name: str, *gpus: int, state: EngineState = READY) -> list[EngineView]:
    return [
        EngineView(f"{name}-{n}", name, "h", state, (f"GPU-{gpu}",))
        for n, gpu in enumerate(gpus)
    ]


def host(gpus: int, held: list[EngineView]) -> Host:
    by = {uuid: engine.id for engine in held for uuid in engine.uuids}
    shown = []
    for gpu in processes.gpus(gpus):
        if gpu.uuid in by:
            full = (GpuProcess(1, 70 * GIB, engine=by[gpu.uuid]),)
            gpu = replace(gpu, used=70 * GIB, free=10 * GIB, processes=full)
        shown.append(gpu)
    return Host("h", tuple(shown))


def scene(
    a: ModelSpec, b: ModelSpec, waiting: int, held: list[EngineView], gpus: int = 8
) -> RebalanceView:
    models = (ModelView(a, waiting, load_seconds=90), ModelView(b, load_seconds=90))
    return RebalanceView(models, tuple(held), (host(gpus, held),))


def remembered(held: list[EngineView], **meters: Meter) -> RebalanceMemory:
    known = {
        name: replace(
            meter, wanted=tuple(each.id for each in held if each.model == name)
        )
        for name, meter in meters.items()
    }
    return RebalanceMemory(NOW - 30, known)


def ids(outcome: RebalanceOutcome) -> set[str]:
    return {each.id for each in outcome.wanted}


FULL = [*engines("a", 0, 1, 2, 3), *engines("b", 4, 5, 6, 7)]
A, B = model("a", 1, 7), model("b", 1, 7)


def move() -> RebalanceOutcome:
    return rebalance(
        scene(A, B, 2000, FULL), remembered(FULL, a=HOT, b=BUSY), RULES, NOW
    )


def said(outcome: RebalanceOutcome) -> str:
    """All reasons in one text."""
    return " | ".join(str(each) for each in outcome.reasons)
