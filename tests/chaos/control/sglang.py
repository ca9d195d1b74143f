"""Two real SGLang engines on the CPU; one runs a third of the time."""

import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from celery import Celery

from benchmarks.report import Goal, Report
from launcher.host.gpus import GpuInventory
from modelserver.inventory import GIB
from modelserver.settings import load
from modelserver.store.fleet.engines import read_engines
from tests.acceptance.product import EMBED, Product
from tests.chaos.control.run import (
    SETTLE_SECONDS,
    Run,
    promises,
    relaunched_once,
    report,
)
from tests.chaos.control.traffic import Mix, Traffic, wandering
from tests.chaos.load import Load
from tests.gpu_check.engine import made_up_model
from tests.support.fleets import model
from tests.support.processes import end

ENGINES = ("tiny-chat-0", "tiny-chat-1")
SICK = ENGINES[1]
#: Requests that leave room on this machine and on a slowed engine.
STEADY = Mix(3.0, (10, 60), (16, 48))
#: The same for engines on a GPU.
GPU_STEADY = Mix(12.0, (10, 60), (64, 192))
#: The share of the GPU that each of them takes.
GPU_SHARE = 0.3
#: How long the slowed engine's processes stand still in each turn, in seconds.
STOPPED_SECONDS = 0.2
#: How long the slowed engine's processes run in each turn, in seconds.
RUNNING_SECONDS = 0.1
#: How long control may take to take the slowed engine out of service, in seconds.
SLOW_SECONDS = 90.0
FLEET = """
[[models]]
name = "tiny-chat"
path = "builtin:tiny-chat"
engine = "sglang-cpu"
context_length = 4096
max_running = 8
min_engines = 2
drain_seconds = 10
sampling = { ignore_eos = true }
"""

#: Two engines with a peer and one without.
BUSY = (*ENGINES, EMBED)
BUSY_FLEET = f"""{FLEET}
[[models]]
name = "tiny-embed"
kind = "embedding"
path = "builtin:tiny-embed"
engine = "sglang-cpu"
drain_seconds = 10
"""
#: How long the machine is busy while there are requests, in seconds.
BUSY_LOADED_SECONDS = 90.0
#: How long the machine is busy while there are none, in seconds: an empty engine gets a
#: canary every minute.
BUSY_IDLE_SECONDS = 180.0


class Site:
    """What a load runs on: the whole product, with its embedded server."""

    def __init__(self, product: Product) -> None:
        self.product = product
        self.store = product.store
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        """The server's address."""
        return self.product.settings.redis_url

    def client(self) -> Celery:
        """The product's client application."""
        return self.product.app

    def keep(self, callback: Any, *arguments: Any) -> None:
        """Call this at the end."""
        self._stack.callback(callback, *arguments)

    def executed(self) -> dict[str, int]:
        """Unknown."""
        return {}

    def living(self) -> int:
        """Engines that serve."""
        return sum(engine.serves for engine in read_engines(self.store).values())

    def close(self) -> None:
        """What was to be called."""
        self._stack.close()


class Slowed:
    """A process tree that is stopped and continued in short turns. A context manager.

    Ends by itself when the tree does.
    """

    def __init__(self, pid: int) -> None:
        head = psutil.Process(pid)
        self._tree = [head, *head.children(recursive=True)]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._over.is_set() and self._tree:
            self._each("suspend")
            self._over.wait(STOPPED_SECONDS)
            self._each("resume")
            self._over.wait(RUNNING_SECONDS)

    def _each(self, what: str) -> None:
        alive = []
        for process in self._tree:
            with suppress(psutil.NoSuchProcess):
                getattr(process, what)()
                alive.append(process)
        self._tree = alive


def sglang_slowed() -> Report:
    """One of two real SGLang engines stands still for two thirds of the time.

    Its processes are stopped and continued in short turns until it is relaunched; the
    next incarnation is let be.
    """
    return _one_slowed("sglang slowed", FLEET, STEADY)


def gpu_slowed() -> Report:
    """One of two SGLang engines on one GPU stands still for two thirds of the time.

    ENGINE in the environment names them, as for ``make gpu-check``.
    """
    engine, *extra = shlex.split(os.environ.get("ENGINE", "")) or ["sglang"]
    inventory = GpuInventory()
    gpus = inventory.read()
    if not gpus:
        raise RuntimeError(
            f"this machine has no GPU that can be used: {inventory.driver}; run "
            "gpu-slowed on one that has"
        )
    total = min(gpu.total for gpu in gpus)
    with tempfile.TemporaryDirectory(prefix="modelserver-chaos-gpu-") as folder:
        keys = made_up_model(engine, extra, Path(folder) / "weights")
        keys |= {"gpus": 1, "share_gpu": True, "min_engines": 2, "max_engines": 2}
        keys |= {"gpu_memory_gib": int(GPU_SHARE * total / GIB), "drain_seconds": 10}
        keys |= {"start_seconds": 900, "max_running": 64}
        keys |= {"sampling": {"ignore_eos": True}}
        return _one_slowed("gpu slowed", model("tiny-chat", **keys), GPU_STEADY)


def _one_slowed(name: str, fleet: str, mix: Mix) -> Report:
    with _product(fleet, ENGINES) as site, Run(site, ENGINES, mix) as run:
        run.calibrate()
        run.strike(SICK)
        with Slowed(site.product.engine(SICK).pid):
            run.await_ready()
        done = run.finish(name, echoes=False)
    goals = [*promises([done]), *relaunched_once(done, SLOW_SECONDS)]
    busy = f"load of the machine at the end: {os.getloadavg()[0]:.1f}"
    return report([done], goals, busy)


@contextmanager
def busy_machine(seconds: float) -> Iterator[None]:
    """Programs that use the processors, two for each; they end by themselves, too."""
    text = f"import time\nend = time.monotonic() + {seconds}\n"
    text += "while time.monotonic() < end: pass"
    argv = [sys.executable, "-c", text]
    programs = [subprocess.Popen(argv) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for program in programs:
            end(program)


class Texts(Load):
    """Texts to embed, each a request."""

    def ask(self, text: str = "", max_tokens: int = 0, **options: object) -> str:
        """Submit one more; its id."""
        prompt = f"{self.name} {len(self.prompts)}{text}"
        sent = self.app.modelserver_tasks[2].apply_async((prompt,), **options)
        self.accepted_at[sent.id] = time.monotonic()
        self.prompts[sent.id] = prompt
        return str(sent.id)


def machine_busy() -> Report:
    """Other programs keep all processors busy, engines loaded and idle: no act.

    Three real SGLang engines on the CPU, two of one model and one without peers.
    """
    with _product(BUSY_FLEET, BUSY) as site, Run(site, BUSY, STEADY) as run:
        texts = Texts(site, "texts")
        embedding = Traffic(texts, STEADY)
        run.calibrate(models=2)
        run.strike()
        with busy_machine(2 * (BUSY_LOADED_SECONDS + BUSY_IDLE_SECONDS)):
            time.sleep(BUSY_LOADED_SECONDS)
            run.traffic.stop()
            embedding.stop()
            time.sleep(BUSY_IDLE_SECONDS)
        run.over()
        done = run.finish("machine busy", echoes=False)
        texts.settle(SETTLE_SECONDS)
        unanswered = len(texts.prompts) - len(texts.results())
    lost = Goal("texts lost", unanswered, 0, at_most=True)
    return report([done], [*promises([done]), lost])


def sglang_well() -> Report:
    """Real SGLang engines that are well, chat and embedding, under a load that wanders.

    WATCH_SECONDS in the environment sets how long that goes.
    """
    with _product(BUSY_FLEET, BUSY) as site, Run(site, BUSY, STEADY) as run:
        texts = Texts(site, "texts")
        embedding = Traffic(texts, STEADY)
        run.calibrate(models=2)
        run.strike()
        for mix in wandering(rates=(0.3, 1.0, 3.0, 6.0, 10.0)):
            run.traffic.mix = embedding.mix = mix
        run.traffic.mix = embedding.mix = STEADY
        run.over()
        embedding.stop()
        done = run.finish("sglang well", echoes=False)
        texts.settle(SETTLE_SECONDS)
        unanswered = len(texts.prompts) - len(texts.results())
    lost = Goal("texts lost", unanswered, 0, at_most=True)
    note = f"{len(texts.prompts)} texts besides"
    return report([done], [*promises([done]), lost], note)


@contextmanager
def _product(fleet: str, engines: Sequence[str]) -> Iterator[Site]:
    home = load().home
    with tempfile.TemporaryDirectory(prefix="modelserver-chaos-") as folder:
        product = Product(Path(folder), home, fleet, engines)
        try:
            product.await_ready()
            site = Site(product)
            try:
                yield site
            finally:
                site.close()
        finally:
            product.close()
