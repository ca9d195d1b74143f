"""One engine on a GPU under a real launcher, worker and control, step by step."""

import asyncio
import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from modelserver.engine_client import ask, open_session
from modelserver.engine_protocol import COMPLETIONS_PATH
from modelserver.inventory import GIB, Gpu, gib
from modelserver.settings import load
from modelserver.store.fleet.control import read_waiting
from modelserver.store.fleet.hosts import read_host
from modelserver.values import EngineReport, EngineState
from tests.gpu_check.findings import Findings
from tests.support.fleets import MARK, Hosts, model, open_hosts
from tests.support.processes import ValkeyProcess, end, eventually, lives
from tests.support.workers import WorkerProcess

HOST = "checked-host"
#: Compiling and capturing graphs takes minutes the first time.
START_SECONDS = 900.0
STOP_SECONDS = 60.0
#: Until a launcher's next look at its GPUs is in the store.
SEEN_SECONDS = 20.0
#: A driver may take so long until it shows memory as free again.
FREED_SECONDS = 20.0
REQUESTS, IN_FLIGHT, TOKENS, ROUNDS = 512, 256, 128, 3
SAMPLING = {"max_tokens": TOKENS, "ignore_eos": True, "temperature": 0}
#: What somebody else's program holds of a GPU, and an engine beside it may take.
STRANGERS_SHARE, BESIDE_SHARE = 0.4, 0.3
#: Takes so many bytes of the first GPU that it sees, until its input ends.
STRANGER = """
import sys, torch
held = torch.empty(int(sys.argv[1]), dtype=torch.uint8, device="cuda")
print("holds", flush=True)
sys.stdin.read()
"""


def check(
    findings: Findings, folder: Path, gpus: tuple[Gpu, ...], keys: dict[str, Any]
) -> None:
    """Run engines made by these keys of a model on a GPU, and look at everything."""
    (folder / "valkey").mkdir()
    server = ValkeyProcess(folder / "valkey").start()
    seconds = {"start_seconds": START_SECONDS, "max_running": IN_FLIGHT}
    one = model("checked", gpus=1, **seconds, **keys)
    every = model("every", gpus=len(gpus), **keys)
    little = model("little", gpus=1, gpu_memory_gib=2, **keys)
    share = {"gpu_memory_gib": _beside(gpus) / GIB, "share_gpu": True}
    beside = model("beside", gpus=1, **seconds, **share, **keys)
    now = ("--wait", "0", "--force")
    try:
        with open_hosts(folder, server.url, little) as hosts:
            hosts.launch(HOST)
            _refuses_too_little(findings, hosts)
            with _strangers(gpus, keys["interpreter"], folder) as pids:
                hosts.apply(one, options=now)
                _leaves_strangers_alone(findings, hosts, pids)
                hosts.apply(beside, options=now)
                engine = _starts(findings, hosts, "beside-0")
                _holds_its_share(findings, hosts, engine, within=_beside(gpus))
                _says_who_else(findings, hosts, engine, pids)
            hosts.apply(one, every, options=now)
            engine = _starts(findings, hosts, "checked-0")
            _holds_its_share(findings, hosts, engine)
            _says_why_another_waits(findings, hosts)
            worker = hosts.worker(HOST)
            _generates(findings, hosts, engine, worker)
            engine = _comes_back(findings, hosts, engine)
            hosts.apply(little, options=now)
            _gives_back(findings, hosts, engine)
    finally:
        server.stop()


def _beside(gpus: tuple[Gpu, ...]) -> int:
    """Bytes for an engine that shares its GPU, of whole GiB."""
    return int(BESIDE_SHARE * gpus[0].total / GIB) * GIB


@contextmanager
def _strangers(gpus: tuple[Gpu, ...], python: str, folder: Path) -> Iterator[set[int]]:
    """A program on each GPU that no launcher started; gives their pids."""
    with ExitStack() as stack:
        programs = []
        for gpu in gpus:
            held = str(int(STRANGERS_SHARE * gpu.total))
            where = {"CUDA_VISIBLE_DEVICES": gpu.uuid, MARK: str(folder)}
            program = subprocess.Popen(
                [python, "-c", STRANGER, held],
                env={**os.environ, **where},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            stack.enter_context(program)
            stack.callback(end, program)
            programs.append(program)
        for program in programs:
            assert program.stdout is not None
            assert program.stdout.readline(), "it holds nothing"
        yield {program.pid for program in programs}


def _reported(
    hosts: Hosts, engine: str, state: EngineState, within: float
) -> EngineReport:
    def there() -> EngineReport | None:
        found = hosts.engine(engine)
        return found if found and found.state is state else None

    return eventually(there, within)


def _refuses_too_little(findings: Findings, hosts: Hosts) -> None:
    engine = _reported(hosts, "little-0", EngineState.FATAL, 60)
    refused = "too little" in engine.reason and not engine.pid
    findings.add("2 GiB refused before a start", refused, engine.reason)


def _leaves_strangers_alone(findings: Findings, hosts: Hosts, pids: set[int]) -> None:
    def named() -> str:
        reason = read_waiting(hosts.store).get("checked-0", "")
        return reason if any(f"pid {pid} " in reason for pid in pids) else ""

    reason = ""
    with suppress(AssertionError):
        reason = eventually(named, SEEN_SECONDS)
    reason = reason or read_waiting(hosts.store).get("checked-0", "none")
    lives_on = all(lives(pid) for pid in pids)
    findings.add("a stranger's GPU is not taken", bool(named()) and lives_on, reason)


def _starts(findings: Findings, hosts: Hosts, name: str) -> EngineReport:
    began, steps = time.monotonic(), list[str]()

    def serves() -> EngineReport | None:
        engine = hosts.engine(name)
        if engine and engine.progress and engine.progress not in steps:
            steps.append(engine.progress)
        if time.monotonic() - began > SEEN_SECONDS:
            assert engine, f"{read_waiting(hosts.store)} {hosts.said()}"
        failed = (EngineState.FATAL, EngineState.BACKOFF)
        if engine and engine.state in failed:
            raise RuntimeError(f"it did not start: {engine.reason}")
        return engine if engine and engine.serves else None

    engine = eventually(serves, START_SECONDS)
    took = time.monotonic() - began
    findings.add(f"{name}: first token", True, f"{took:.1f} s after it was wanted")
    told = ", ".join(steps) or "none"
    findings.add(f"{name}: steps of the start told", bool(steps), told)
    return engine


def _holds_its_share(
    findings: Findings, hosts: Hosts, engine: EngineReport, within: int = 0
) -> None:
    """``within``: bytes that it may take; else it leaves some of the GPU free."""
    line = next(_lines(Path(engine.log), "--- "), "")
    words = line.split()
    flags = ("--mem-fraction-static", "--gpu-memory-utilization")
    told = [f"{w} {words[words.index(w) + 1]}" for w in flags if w in words]
    # The GPUs are read every few seconds: perhaps not yet since it started.
    with suppress(AssertionError):
        eventually(lambda: _held(hosts, engine), SEEN_SECONDS)
    held, gpu = _held(hosts, engine), _gpu(hosts, engine)
    known = f"{engine.id}: its memory is known as its own"
    findings.add(known, bool(held), gpu.holders or "nobody's")
    share = held / gpu.total if gpu.total else 0.0
    fact = f"told {', '.join(told) or 'nothing'}; holds {gib(held)}, {share:.0%} of it"
    if within:
        right = 0.5 * within < held <= within
        fact += f", promised {gib(within)}"
        findings.add(f"{engine.id}: takes no more than promised", right, fact)
    else:
        free = GIB <= gpu.free < gpu.total / 2
        findings.add(f"{engine.id}: some memory stays free", free, fact)


def _says_who_else(
    findings: Findings, hosts: Hosts, engine: EngineReport, pids: set[int]
) -> None:
    gpu = _gpu(hosts, engine)
    others = {each.pid: each for each in gpu.processes if not each.engine}
    told = ", ".join(f"{each}, {gib(each.used)}" for each in others.values())
    right = bool(others) and set(others) <= pids
    right = right and all(each.owner and each.command for each in others.values())
    findings.add("strangers named with their owner", right, told or "nobody")


def _gpu(hosts: Hosts, engine: EngineReport) -> Gpu:
    host = read_host(hosts.store, HOST)
    assert host, hosts.said()
    (index,) = engine.gpus
    return next(each for each in host.gpus if each.index == index)


def _held(hosts: Hosts, engine: EngineReport) -> int:
    processes = _gpu(hosts, engine).processes
    return sum(each.used for each in processes if each.engine == engine.id)


def _lines(log: Path, beginning: str) -> Iterator[str]:
    lines = log.read_text(errors="replace").splitlines()
    return (line for line in lines if line.startswith(beginning))


def _says_why_another_waits(findings: Findings, hosts: Hosts) -> None:
    reason = eventually(lambda: read_waiting(hosts.store).get("every-0", ""))
    findings.add("reason of one that waits", "engine checked-0" in reason, reason)


def _generates(
    findings: Findings, hosts: Hosts, engine: EngineReport, worker: WorkerProcess
) -> None:
    began = time.monotonic()
    _through_tasks(hosts, ["Once upon a time"])
    alone = time.monotonic() - began
    findings.add("one request", True, f"{TOKENS} tokens in {alone:.2f} s")
    asyncio.run(_bare(hosts, engine, _prompts("warm")))
    ours, bare = [], []
    process = psutil.Process(worker.pid)
    spent = sum(process.cpu_times()[:2])
    for number in range(ROUNDS):
        began = time.monotonic()
        _through_tasks(hosts, _prompts(f"ours {number}"))
        between = time.monotonic()
        asyncio.run(_bare(hosts, engine, _prompts(f"bare {number}")))
        ours.append(between - began)
        bare.append(time.monotonic() - between)
    spent = (sum(process.cpu_times()[:2]) - spent) / (ROUNDS * REQUESTS)
    took, plain = statistics.median(ours), statistics.median(bare)
    findings.add(
        f"{REQUESTS} requests, {IN_FLIGHT} in flight",
        True,
        f"{took:.2f} s ({min(ours):.2f} to {max(ours):.2f}), "
        f"{REQUESTS * TOKENS / took:,.0f} tokens/s, worker {1000 * spent:.2f} ms of "
        f"CPU each; bare HTTP {plain:.2f} s ({min(bare):.2f} to {max(bare):.2f})",
    )


def _prompts(name: str) -> list[str]:
    return [f"{name} {number}: a story" for number in range(REQUESTS)]


def _through_tasks(hosts: Hosts, prompts: list[str]) -> None:
    options = {"model": "checked", **SAMPLING}
    sent = [hosts.complete.apply_async((each,), options) for each in prompts]
    for each in sent:
        assert each.get(timeout=300)


async def _bare(hosts: Hosts, engine: EngineReport, prompts: list[str]) -> None:
    gate = asyncio.Semaphore(IN_FLIGHT)

    async def one(prompt: str) -> None:
        async with gate:
            body = {"model": "checked", "prompt": prompt, **SAMPLING}
            answer = await ask(session, engine.url + COMPLETIONS_PATH, body)
        assert answer["choices"][0]["text"]

    keys = load(hosts.environment(HOST)).keyring()
    async with open_session(keys=keys) as session:
        await asyncio.gather(*map(one, prompts))


def _comes_back(findings: Findings, hosts: Hosts, engine: EngineReport) -> EngineReport:
    """SIGKILL of the head alone: its children hold the GPU until somebody ends them."""
    assert engine.pid
    head = psutil.Process(engine.pid)
    family = [head, *head.children(recursive=True)]
    began = time.monotonic()
    head.kill()
    again = hosts.ready(engine.id, engine.incarnation + 1, START_SECONDS)
    took = time.monotonic() - began
    left = [each for each in family if each.is_running()]
    answered = time.monotonic()
    _through_tasks(hosts, ["Once more"])
    fact = (
        f"serves again {took:.1f} s after SIGKILL of its head, {len(left)} of "
        f"{len(family)} processes left; answers in {time.monotonic() - answered:.2f} s"
    )
    findings.add("killed", not left, fact)
    return again


def _gives_back(findings: Findings, hosts: Hosts, engine: EngineReport) -> None:
    began = time.monotonic()
    eventually(lambda: hosts.engine("checked-0") is None, STOP_SECONDS)
    ended = time.monotonic() - began
    eventually(lambda: not _held(hosts, engine), FREED_SECONDS)
    took = time.monotonic() - began
    fact = f"ended after {ended:.1f} s, GPU given back after {took:.1f} s"
    findings.add("stopped, nothing left", not lives(engine.pid), fact)
