"""Kills of a real SGLang engine: its head, and its scheduler alone."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.report import Goal, Report
from launcher import environments
from modelserver.settings import load
from tests.acceptance.product import CHAT, PATIENCE, Product
from tests.chaos.launcher import kills
from tests.support.processes import eventually

#: Requests that are on the engine when it is killed.
REQUESTS = 10
#: How long SGLang may take to become ready, in seconds; it usually takes 7 to 20.
READY_SECONDS = 30.0
#: How long a kill may go unnoticed, in seconds.
NOTICED_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: seconds until it was reported, and until the engine was ready again.

    ``left`` counts processes of the old start that live then, ``failed`` requests;
    ``starts`` is how many it took, more than one where SGLang died while it started.
    """

    noticed: float
    ready: float
    left: int
    failed: int
    starts: int


def engine_killed() -> Report:
    """SIGKILL of a real engine's head, and of its scheduler alone: it comes back whole.

    The whole product runs, with SGLang on the CPU. After each kill the engine is
    relaunched by `modelserver relaunch`, which forgives its deaths: five within ten
    minutes would make it FATAL, and each would wait longer than the one before. So
    every figure is that of a first death. KILLS in the environment sets the number.
    """
    home = load().home
    environments.interpreter("sglang-cpu", home)
    with tempfile.TemporaryDirectory(prefix="modelserver-chaos-") as folder:
        product = Product(Path(folder), home)
        try:
            product.await_ready()
            runs = {title: _kills(product, title) for title in ("head", "scheduler")}
        finally:
            product.close()
    return _report(runs)


def _kills(product: Product, title: str) -> list[Kill]:
    done = []
    for number in range(kills()):
        done.append(_kill(product, title))
        print(f"  {title} {number + 1} of {kills()}: {done[-1]}", flush=True)
    return done


def _kill(product: Product, title: str) -> Kill:
    before = product.engine()
    head = psutil.Process(before.pid)
    tree = [head, *head.children(recursive=True)]
    victim = head if title == "head" else _titled(tree, f"sglang::{title}")
    results = product.send(REQUESTS, max_tokens=100)
    eventually(product.running, PATIENCE)
    victim.kill()
    began = time.monotonic()
    eventually(lambda: not product.is_ready(before.incarnation), PATIENCE)
    noticed = time.monotonic() - began
    incarnation = _ready_after(product, before.incarnation)
    ready = time.monotonic() - began
    left = sum(each.is_running() for each in tree)
    failed = 0
    for result in results:
        result.get(timeout=PATIENCE, propagate=False)
        failed += result.failed()
    product.command("relaunch", CHAT)
    _ready_after(product, incarnation)
    return Kill(noticed, ready, left, failed, incarnation - before.incarnation)


def _ready_after(product: Product, incarnation: int) -> int:
    """The first later incarnation that serves."""

    def later() -> int:
        engine = product.engine()
        serves = engine.serves and engine.incarnation > incarnation
        return engine.incarnation if serves else 0

    return eventually(later, PATIENCE)


def _titled(tree: list[psutil.Process], title: str) -> psutil.Process:
    found = [each for each in tree if " ".join(each.cmdline()).startswith(title)]
    if not found:
        raise RuntimeError(f"the engine has no process {title}")
    return found[0]


def _report(runs: dict[str, list[Kill]]) -> Report:
    columns = ("killed", "kills", "noticed max s", "ready p50 s", "ready max s")
    columns += ("left", "failed", "starts max")
    rows, goals = [], []
    for title, done in runs.items():
        ready = sorted(kill.ready for kill in done)
        noticed = max(kill.noticed for kill in done)
        left = sum(kill.left for kill in done)
        failed = sum(kill.failed for kill in done)
        middle = ready[len(ready) // 2]
        starts = max(kill.starts for kill in done)
        rows.append(
            (title, len(done), noticed, middle, ready[-1], left, failed, starts)
        )
        goals += [
            Goal(f"{title} noticed", noticed, NOTICED_SECONDS, "s", at_most=True),
            Goal(f"{title} ready", ready[-1], READY_SECONDS, "s", at_most=True),
            Goal(f"{title} processes left", left, 0, at_most=True),
            Goal(f"{title} requests failed", failed, 0, at_most=True),
        ]
    return Report(columns, tuple(rows), tuple(goals))
