"""A fleet as in production: server, launcher, engines, workers, beat for control."""

import json
import urllib.request
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import psutil
from celery import Celery

from benchmarks.machine import Server
from modelserver.api import client
from modelserver.store.fleet.engines import read_engines
from modelserver.values import EngineReport
from tests.support.fleets import make_hosts, model
from tests.support.trial import Trial

HOST = "a"
MODEL = "m"
#: Requests that each engine takes at once.
MAX_RUNNING = 8
#: What a step of the batch costs, each sequence in it, and each token of a new prompt.
#: A prompt of 35 tokens with 24 to answer takes 0.8 s alone. One of 350 tokens takes a
#: quarter of a second more, and delays all others by that.
COSTS = ("--step-seconds", "0.03", "--batch-seconds", "0.001")
COSTS += ("--prefill-seconds", "0.0008", "--max-running", str(MAX_RUNNING))
ENGINES = tuple(f"{MODEL}-{number}" for number in range(3))


class Fleet(Trial):
    """Engines of one model on one host, three by default. A context manager.

    ``workers`` and ``beats`` say how many there are, ``options`` are the engines', and
    ``server`` those of the server.
    """

    def __init__(
        self,
        *options: str,
        engines: Sequence[str] = ENGINES,
        workers: int = 1,
        beats: int = 1,
        server: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._engines = engines
        self._counts = (workers, beats)
        self._options = (*COSTS, *options)
        self._server_options = server
        super().__init__("control")

    def _open(self) -> None:
        self.server = Server(self.folder / "valkey", **self._server_options)
        self.keep(self.server.stop)
        self.server.start()
        number = len(self._engines)
        served = model(
            MODEL, *self._options, min_engines=number, max_running=MAX_RUNNING
        )
        self.hosts = make_hosts(self.folder, self.url, served)
        self.keep(self.hosts.close)
        self.store = self.hosts.store
        self.hosts.launch(HOST)
        workers, beats = self._counts
        for _ in range(workers):
            self.add_worker()
        for _ in range(beats):
            self.hosts.beat()
        for engine in self._engines:
            self.hosts.ready(engine, within=60)

    def add_worker(self) -> None:
        """Start one more worker of the host."""
        self.hosts.worker(HOST, f"w{len(self.hosts.workers)}")

    def engine(self, name: str) -> EngineReport:
        """An engine as its launcher reports it."""
        return read_engines(self.store)[name]

    def process(self, name: str) -> psutil.Process:
        """An engine's process."""
        return psutil.Process(self.engine(name).pid)

    def fault(self, name: str, **values: object) -> None:
        """Put a fault in force on an engine."""
        url = f"{self.engine(name).url}/fault"
        request = urllib.request.Request(url, json.dumps(values).encode())
        with urllib.request.urlopen(request, timeout=5) as reply:
            assert reply.status == 200

    # What a load runs on.

    @property
    def url(self) -> str:
        """The server's address."""
        return self.server.url

    def client(self) -> Celery:
        """A client application."""
        app = client(self.hosts.settings)
        self.keep(app.close)
        return app

    def executed(self) -> dict[str, int]:
        """Unknown: the counts of an engine that is relaunched are lost."""
        return {}

    def living(self) -> int:
        """Workers and engines that run."""
        workers = sum(each.process.poll() is None for each in self.hosts.workers)
        return workers + sum(each.serves for each in read_engines(self.store).values())
