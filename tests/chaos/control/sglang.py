"""Two real SGLang engines on the CPU; one runs a third of the time."""

import os
import tempfile
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from celery import Celery

from benchmarks.report import Report
from launcher import environments
from modelserver.settings import load
from tests.acceptance.product import Product
from tests.chaos.control.run import Run, promises, relaunched_once, report
from tests.chaos.control.traffic import Mix

ENGINES = ("tiny-chat-0", "tiny-chat-1")
SICK = ENGINES[1]
#: Little enough that neither the machine nor a slowed engine is full.
STEADY = Mix(3.0, (10, 60), (16, 48))
#: In each turn the engine's processes stand still for so long, and run for so long.
STOPPED_SECONDS, RUNNING_SECONDS = 0.2, 0.1
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
        return sum(engine.serves for engine in self.store.engines().values())

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
    home = load().home
    environments.interpreter("sglang-cpu", home)
    with tempfile.TemporaryDirectory(prefix="modelserver-chaos-") as folder:
        product = Product(Path(folder), home, FLEET, ENGINES)
        try:
            product.await_ready()
            site = Site(product)
            try:
                return _slowed(site)
            finally:
                site.close()
        finally:
            product.close()


def _slowed(site: Site) -> Report:
    with Run(site, ENGINES, STEADY) as run:
        run.calibrate()
        run.strike(SICK)
        with Slowed(site.product.engine(SICK).pid):
            run.await_ready()
        done = run.finish("sglang slowed", echoes=False)
    goals = [*promises([done]), *relaunched_once(done, SLOW_SECONDS)]
    busy = f"load of the machine at the end: {os.getloadavg()[0]:.1f}"
    return report([done], goals, busy)
