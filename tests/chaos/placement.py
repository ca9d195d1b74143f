"""GPUs that strangers come to and leave, under launchers of four hosts."""

import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.report import Goal, Report
from modelserver.policy.actions import Action, Want
from modelserver.store.fleet.control import read_waiting, read_wishes
from modelserver.store.fleet.engines import read_engines
from modelserver.values import EngineSpec
from tests.nvml import StubGpu, build
from tests.nvml.fleet import GpuFleet, section
from tests.support.processes import ValkeyProcess

HOSTS = ("h0", "h1", "h2", "h3")
GPUS = 8
STEPS = 30
SEED = 20260201
#: The share of steps in which an engine dies and a stranger takes its GPU.
ROB_SHARE = 0.4
#: Whole groups, groups with a need in GiB, and small models that share a GPU.
MODELS = (
    [{"gpus": 8}, {"gpus": 4}, {"gpus": 4}, {"gpus": 2}, {"gpus": 2, "min_engines": 2}]
    + [{"gpus": 2, "gpu_memory_gib": 40}, {"gpus": 1}, {"gpus": 1, "min_engines": 3}]
    + [{"gpus": 1, "gpu_memory_gib": 60}]
    + [{"gpus": 1, "gpu_memory_gib": 12, "share_gpu": True, "min_engines": 2}] * 2
    + [{"gpus": 1, "gpu_memory_gib": 30, "share_gpu": True}]
)


@dataclass
class _Account:
    """What was seen in all steps."""

    placed: int = 0
    ready: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    overfull: int = 0
    torn: int = 0
    disturbed: int = 0
    silent: int = 0
    seconds: list[float] = field(default_factory=list)
    reason: str = ""


def placement() -> Report:
    """Strangers come to 32 GPUs of 4 hosts and leave, 30 times; 12 models are placed.

    Real launchers and a stub of NVML; an engine is the test engine, and what it would
    hold is written into the stub. After each step all has to settle.
    """
    account = _Account()
    with (
        tempfile.TemporaryDirectory() as name,
        subprocess.Popen(["sleep", "3600"]) as stranger,
    ):
        folder = Path(name)
        (folder / "valkey").mkdir()
        server = ValkeyProcess(folder / "valkey").start()
        fleet = GpuFleet(
            folder,
            server.url,
            build(folder / "nvml"),
            {host: _gpus(host) for host in HOSTS},
            [section(f"m{place}", **keys) for place, keys in enumerate(MODELS)],
        )
        try:
            _run(fleet, account, stranger.pid)
        finally:
            fleet.end()
            server.stop()
            stranger.kill()
    return _report(account)


def _gpus(host: str) -> list[StubGpu]:
    return [StubGpu(f"GPU-{host}-{index}") for index in range(GPUS)]


def _run(fleet: GpuFleet, account: _Account, stranger: int) -> None:
    draw = random.Random(SEED)
    _step(fleet, account)
    for _ in range(STEPS):
        host, index = draw.choice(HOSTS), draw.randrange(GPUS)
        victim = _rob(fleet, draw, stranger) if draw.random() < ROB_SHARE else ""
        if not victim:
            _come_or_go(fleet, draw, stranger, host, index)
        _step(fleet, account, victim)


def _come_or_go(
    fleet: GpuFleet, draw: random.Random, stranger: int, host: str, index: int
) -> None:
    gpu = fleet.stubs[host].gpus[index]
    room = gpu.total - gpu.held
    if fleet.strangers.get(gpu.uuid):
        fleet.stranger(host, index, stranger, 0)
    elif room >= 2:
        fleet.stranger(host, index, stranger, draw.uniform(1, room))


def _rob(fleet: GpuFleet, draw: random.Random, stranger: int) -> str:
    """An engine dies, and a stranger takes one of its GPUs before it starts again.

    Returns the engine, "" where none serves.
    """
    engines = sorted(fleet.ready().values(), key=lambda engine: engine.id)
    if not engines:
        return ""
    victim = draw.choice(engines)
    index = draw.choice(victim.gpus)
    gpu = fleet.stubs[victim.host].gpus[index]
    os.kill(victim.pid, signal.SIGKILL)
    gpu.processes.pop(victim.pid, None)
    fleet.stranger(victim.host, index, stranger, (gpu.total - gpu.held) * 0.9)
    return victim.id


def _step(fleet: GpuFleet, account: _Account, victim: str = "") -> None:
    began, before = time.monotonic(), fleet.ready()
    actions = fleet.settle(within=120)
    account.seconds.append(time.monotonic() - began)
    engines, waiting = fleet.ready(), read_waiting(fleet.store)
    wishes = {name: wish.spec for name, wish in read_wishes(fleet.store).items()}
    account.placed += _placed(actions)
    account.disturbed += sum(
        name not in engines or engines[name].incarnation != engine.incarnation
        for name, engine in before.items()
        if name != victim
    )
    account.ready.append(len(engines))
    account.waiting.append(len(waiting))
    account.overfull += _overfull(fleet)
    account.torn += sum(not _whole(fleet, wishes[name]) for name in engines)
    wanted = {
        f"{model.name}-{number}"
        for model in fleet.models.values()
        for number in range(model.min_engines)
    }
    reports = read_engines(fleet.store).items()
    told = {name for name, reason in waiting.items() if reason}
    told |= {name for name, report in reports if report.reason}
    account.silent += len(wanted - engines.keys() - told)
    account.reason = max([account.reason, *waiting.values()], key=len)


def _placed(actions: Iterable[Action]) -> int:
    return sum(isinstance(each, Want) and bool(each.spec.uuids) for each in actions)


def _overfull(fleet: GpuFleet) -> int:
    """GPUs of which more is held and promised than there is."""
    promised: Counter[str] = Counter()
    for engine in fleet.ready().values():
        need = fleet.models[engine.model]
        for index in engine.gpus:
            gpu = fleet.stubs[engine.host].gpus[index]
            promised[gpu.uuid] += need.gpu_memory_gib or 0.85 * gpu.total
    return sum(
        promised[gpu.uuid] + sum(fleet.strangers.get(gpu.uuid, {}).values())
        > gpu.total + 0.01
        for stub in fleet.stubs.values()
        for gpu in stub.gpus
    )


def _whole(fleet: GpuFleet, spec: EngineSpec) -> bool:
    """Whether an engine has as many GPUs as it needs, all of its own host."""
    there = {gpu.uuid for gpu in fleet.stubs[spec.host].gpus}
    return len(there & set(spec.uuids)) == fleet.models[spec.model].gpus


def _report(account: _Account) -> Report:
    seconds = sorted(account.seconds)
    bad = {
        "over-promised GPUs": account.overfull,
        "torn groups": account.torn,
        "running engines disturbed": account.disturbed,
        "neither ready nor explained": account.silent,
    }
    seen = {
        "steps": len(seconds),
        "placements": account.placed,
        "ready": f"{min(account.ready)}-{max(account.ready)}",
        "waiting": f"{min(account.waiting)}-{max(account.waiting)}",
        **bad,
        "median s to settle": seconds[len(seconds) // 2],
        "most s": seconds[-1],
    }
    return Report(
        columns=tuple(seen),
        rows=(tuple(seen.values()),),
        goals=tuple(Goal(name, count, 0, "", True) for name, count in bad.items()),
        notes=(f"a reason: {account.reason}",),
    )
