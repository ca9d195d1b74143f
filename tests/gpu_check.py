"""``python -m tests.gpu_check [ENGINE]``: what is promised of GPUs, on this machine's.

Installs the engine where it is not there (14 GB), starts it with random weights on a
GPU under a real launcher, worker and control, and prints a report to be kept. Nothing
of it stays behind but the engine's environment. Exit status 1 where a promise is not
kept, 2 where there is no GPU.
"""

import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher import environments
from launcher.gpus import Inventory
from modelserver.inventory import GIB, Gpu, gib
from modelserver.model import Engine, EngineState
from modelserver.settings import load
from tests.fleet_support import CLI, Hosts, model, open_hosts
from tests.support import ValkeyProcess, eventually, lives

HOST = "checked-host"
ENGINES = ("sglang", "vllm")
#: Compiling and capturing graphs takes minutes the first time.
START_SECONDS = 900.0
STOP_SECONDS = 60.0
#: Until a launcher's next look at its GPUs is in the store.
SEEN_SECONDS = 20.0
#: A driver may take so long until it shows memory as free again.
FREED_SECONDS = 20.0
REQUESTS, TOKENS = 64, 128
#: Of attention heads that every kernel knows; 0.3 GB of weights in half precision.
CONFIG = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "num_hidden_layers": 8,
    "head_dim": 128,
    "layer_types": ["full_attention"] * 8,
    "dtype": "bfloat16",
}


@dataclass
class Findings:
    """What was looked at, in order: each with a fact, and whether it is as promised."""

    rows: list[tuple[str, bool, str]] = field(default_factory=list)

    def add(self, what: str, ok: bool, fact: str) -> None:
        """Note one, and show it at once."""
        self.rows.append((what, ok, fact))
        print(f"{'ok' if ok else 'NOT OK':7} {what}: {fact}", flush=True)

    def table(self) -> str:
        """All of them in Markdown."""
        lines = ["| what | as promised | seen |", "|---|---|---|"]
        lines += [
            f"| {w} | {'yes' if ok else '**no**'} | {f} |" for w, ok, f in self.rows
        ]
        return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Check one engine, or say why not; returns the exit status."""
    engine = argv[0] if argv else ENGINES[0]
    if engine not in ENGINES:
        print(f'no engine "{engine}" for GPUs; there are: {", ".join(ENGINES)}')
        return 2
    inventory = Inventory()
    gpus = inventory.read()
    if not gpus:
        print(f"this machine has no GPU that can be used: {inventory.driver}")
        return 2
    home = load().home
    if not environments.is_installed(engine, home):
        subprocess.run([*CLI, "engines", "install", engine], check=True)
    python = environments.interpreter(engine, home)
    environments.ensure_tiny_models(python, home / "models")
    findings = Findings()
    look_at_gpus(findings, gpus, inventory.driver)
    with tempfile.TemporaryDirectory(prefix="modelserver-gpu-check-") as name:
        weights = write_weights(home / "models" / "tiny-chat", Path(name) / "weights")
        keys = {"engine": engine, "interpreter": str(python), "path": str(weights)}
        keys |= {"command": [], "extra_args": ["--load-format", "dummy"]}
        check(findings, Path(name), gpus, {**keys, "context_length": 4096})
    version = environments.environment_path(engine, home).name
    print(f"\n{version}, {platform.platform()}, {time.strftime('%Y-%m-%d')}\n")
    print(findings.table())
    return int(not all(ok for _, ok, _ in findings.rows))


def look_at_gpus(findings: Findings, gpus: tuple[Gpu, ...], driver: str) -> None:
    """The inventory, field by field."""
    for gpu in gpus:
        fact = (
            f"{gpu.name}, {gib(gpu.free)} of {gib(gpu.total)} free, "
            f"{gpu.temperature} °C, {gpu.power_watts} W, driver {driver}"
        )
        if gpu.missing:
            fact += f"; not told: {dict(gpu.missing)}"
        findings.add(gpu.label, bool(gpu.uuid and gpu.total and not gpu.fault), fact)


def write_weights(tiny: Path, folder: Path) -> Path:
    """A model's folder without weights, which the engine makes up."""
    folder.mkdir()
    for file in tiny.iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((tiny / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | CONFIG))
    return folder


def check(
    findings: Findings, folder: Path, gpus: tuple[Gpu, ...], keys: dict[str, Any]
) -> None:
    """Run an engine made by these keys of a model on a GPU, and look at everything."""
    (folder / "valkey").mkdir()
    server = ValkeyProcess(folder / "valkey").start()
    one = model("checked", gpus=1, start_seconds=START_SECONDS, **keys)
    every = model("every", gpus=len(gpus), **keys)
    little = model("little", gpus=1, gpu_memory_gib=2, **keys)
    try:
        with open_hosts(folder, server.url, little) as hosts:
            hosts.launch(HOST)
            _refuses_too_little(findings, hosts)
            hosts.apply(one, every, options=("--wait", "0", "--force"))
            engine = _starts(findings, hosts)
            _holds_its_share(findings, hosts, engine)
            _says_why_another_waits(findings, hosts)
            hosts.worker(HOST)
            _generates(findings, hosts)
            hosts.apply(little, options=("--wait", "0", "--force"))
            _gives_back(findings, hosts, engine)
    finally:
        server.stop()


def _reported(hosts: Hosts, engine: str, state: EngineState, within: float) -> Engine:
    def there() -> Engine | None:
        found = hosts.engine(engine)
        return found if found and found.state is state else None

    return eventually(there, within)


def _refuses_too_little(findings: Findings, hosts: Hosts) -> None:
    engine = _reported(hosts, "little-0", EngineState.FATAL, 60)
    refused = "too little" in engine.reason and not engine.pid
    findings.add("2 GiB refused before a start", refused, engine.reason)


def _starts(findings: Findings, hosts: Hosts) -> Engine:
    began, steps = time.monotonic(), list[str]()

    def serves() -> Engine | None:
        engine = hosts.engine("checked-0")
        if engine and engine.progress and engine.progress not in steps:
            steps.append(engine.progress)
        assert engine, hosts.said()
        failed = (EngineState.FATAL, EngineState.BACKOFF)
        if engine.state in failed:
            raise RuntimeError(f"it did not start: {engine.reason}")
        return engine if engine.serves else None

    engine = eventually(serves, START_SECONDS)
    took = time.monotonic() - began
    findings.add("first token", True, f"{took:.1f} s after it was wanted")
    findings.add("steps of the start told", bool(steps), ", ".join(steps) or "none")
    return engine


def _holds_its_share(findings: Findings, hosts: Hosts, engine: Engine) -> None:
    line = next(_lines(Path(engine.log), "--- "), "")
    words = line.split()
    flags = ("--mem-fraction-static", "--gpu-memory-utilization")
    told = [f"{w} {words[words.index(w) + 1]}" for w in flags if w in words]
    # The GPUs are read every few seconds: perhaps not yet since it started.
    with suppress(AssertionError):
        eventually(lambda: _held(hosts, engine), SEEN_SECONDS)
    held, gpu = _held(hosts, engine), _gpu(hosts, engine)
    findings.add(
        "its memory is known as its own", bool(held), gpu.holders or "nobody's"
    )
    share = held / gpu.total if gpu.total else 0.0
    fact = f"told {', '.join(told) or 'nothing'}; holds {gib(held)}, {share:.0%} of it"
    findings.add("some memory stays free", GIB <= gpu.free < gpu.total / 2, fact)


def _gpu(hosts: Hosts, engine: Engine) -> Gpu:
    host = hosts.store.host(HOST)
    assert host, hosts.said()
    (index,) = engine.gpus
    return next(each for each in host.gpus if each.index == index)


def _held(hosts: Hosts, engine: Engine) -> int:
    processes = _gpu(hosts, engine).processes
    return sum(each.used for each in processes if each.engine == engine.id)


def _lines(log: Path, beginning: str) -> Iterator[str]:
    lines = log.read_text(errors="replace").splitlines()
    return (line for line in lines if line.startswith(beginning))


def _says_why_another_waits(findings: Findings, hosts: Hosts) -> None:
    reason = eventually(lambda: hosts.store.waiting().get("every-0", ""), 30)
    findings.add("reason of one that waits", "engine checked-0" in reason, reason)


def _generates(findings: Findings, hosts: Hosts) -> None:
    options = {"model": "checked", "max_tokens": TOKENS, "ignore_eos": True}
    began = time.monotonic()
    hosts.complete.apply_async(("Once upon a time",), options).get(timeout=120)
    alone = time.monotonic() - began
    began = time.monotonic()
    sent = [
        hosts.complete.apply_async((f"Story {number}",), options)
        for number in range(REQUESTS)
    ]
    for each in sent:
        each.get(timeout=300)
    took = time.monotonic() - began
    rate = REQUESTS * TOKENS / took
    findings.add("one request", True, f"{TOKENS} tokens in {alone:.2f} s")
    findings.add(f"{REQUESTS} at once", True, f"{took:.2f} s, {rate:,.0f} tokens/s")


def _gives_back(findings: Findings, hosts: Hosts, engine: Engine) -> None:
    began = time.monotonic()
    eventually(lambda: hosts.engine("checked-0") is None, STOP_SECONDS)
    ended = time.monotonic() - began
    eventually(lambda: not _held(hosts, engine), FREED_SECONDS)
    took = time.monotonic() - began
    fact = f"ended after {ended:.1f} s, GPU given back after {took:.1f} s"
    findings.add("stopped, nothing left", not lives(engine.pid), fact)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
