"""What it costs control to place a whole fleet."""

import statistics
import time
from dataclasses import replace

from benchmarks.report import Cell, Goal, Report
from modelserver.inventory import GIB, Gpu, GpuProcess, Host
from modelserver.policy.decide import apply
from modelserver.policy.placement.planning import plan
from modelserver.policy.snapshot import Snapshot
from modelserver.values import Kind, ModelSpec, Wish

#: Engines and hosts of a fleet; the last size has the goal.
SIZES = ((10, 5), (50, 25), (200, 100))
GPUS_PER_HOST = 8
REPEATS = 30
GOAL_MILLISECONDS = 50.0


def placement() -> Report:
    """Milliseconds to place engines of mixed sizes on hosts of eight GPUs each.

    From nothing, when nothing changes, and on a fifth of the hosts. One GPU in ten has
    a stranger on it. The snapshot is in memory; reading it is not part of it.
    """
    rows: list[tuple[Cell, ...]] = []
    worst = 0.0
    for engines, hosts in SIZES:
        for name, snapshot in _cases(engines, hosts).items():
            found = plan(snapshot)
            times = sorted(_milliseconds(snapshot) for _ in range(REPEATS))
            median, last = statistics.median(times), times[-1]
            waiting = len(found.waiting)
            rows.append(
                (
                    name,
                    engines,
                    hosts,
                    waiting,
                    median,
                    times[0],
                    last,
                    median / engines,
                )
            )
            if (engines, hosts) == SIZES[-1]:
                worst = max(worst, median)
    columns = ("case", "engines", "hosts", "no place")
    times_of = ("median ms", "least ms", "most ms", "ms for each engine")
    goal = Goal(
        "placement of 200 engines on 100 hosts", worst, GOAL_MILLISECONDS, "ms", True
    )
    note = f"the worst case's median of {REPEATS} runs counts"
    return Report((*columns, *times_of), tuple(rows), (goal,), (note,))


def _cases(engines: int, hosts: int) -> dict[str, Snapshot]:
    fresh = Snapshot(_models(engines), (), _hosts(hosts), {}, {}, {})
    wishes = apply(plan(fresh).actions, {}, token=1)
    kept: dict[str, Wish] = {name: wish for name, wish in wishes.items() if wish}
    few = replace(fresh, hosts=_hosts(max(1, hosts // 5)))
    return {
        "from nothing": fresh,
        "no change": replace(fresh, wishes=kept),
        "short of room": few,
    }


def _milliseconds(snapshot: Snapshot) -> float:
    began = time.perf_counter()
    plan(snapshot)
    return (time.perf_counter() - began) * 1000


def _models(engines: int) -> tuple[ModelSpec, ...]:
    """Twelve models: groups of 8, 4, 2 and 1 GPUs, and small ones that share."""
    kinds = (
        [(8, 0.0, False)] + [(4, 0.0, False)] * 2 + [(2, 40.0, False)] * 3
        + [(1, 0.0, False)] * 3 + [(1, 12.0, True)] * 3
    )  # fmt: skip
    shares = [engines // 12 + (place < engines % 12) for place in range(12)]
    return tuple(
        ModelSpec(
            f"m{place}",
            Kind.COMPLETION,
            "/m",
            "sglang",
            gpus=gpus,
            gpu_memory_gib=memory,
            share_gpu=share,
            min_engines=number,
        )
        for place, ((gpus, memory, share), number) in enumerate(
            zip(kinds, shares, strict=True)
        )
    )


def _hosts(number: int) -> tuple[Host, ...]:
    return tuple(
        Host(f"h{host}", tuple(_gpu(host, index) for index in range(GPUS_PER_HOST)))
        for host in range(number)
    )


def _gpu(host: int, index: int) -> Gpu:
    total = 80 * GIB
    taken = (host * GPUS_PER_HOST + index) % 10 == 0
    used = 30 * GIB if taken else 0
    by = (GpuProcess(4711, used, "anna", "python"),) if taken else ()
    return Gpu(
        index,
        f"GPU-{host}-{index}",
        "H100",
        total=total,
        used=used,
        free=total - used,
        processes=by,
    )
