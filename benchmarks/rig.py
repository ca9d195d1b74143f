"""What a measurement runs on: a server, engines and workers of its own, on loopback.

Everything lives in a folder of its own and ends with the rig, by process number, even
where a run fails. Engines are the tests' fault-injecting ones and are reported as ready
in a launcher's place.
"""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from celery import Celery

from benchmarks.machine import START_SECONDS, Processes, Server
from modelserver import settings as settings_module
from modelserver.api import client
from modelserver.settings import Settings
from modelserver.store import Store, connect
from modelserver.store.fleet.engines import report_engine
from modelserver.store.fleet.workers import read_workers
from modelserver.values import EngineReport, EngineState
from tests.engine.process import EngineProcess
from tests.support.processes import eventually
from tests.support.trial import Trial

HOST = "rig"
#: The completion model of every rig.
CHAT_MODEL = "bench"
#: The embedding model of every rig.
EMBED_MODEL = "vectors"
PREFIX = "bench:"
FLEET = """
[[models]]
name = "{chat}"
engine = "external"

[[models]]
name = "{embed}"
kind = "embedding"
engine = "external"

[redis]
url = "{url}"
prefix = "{prefix}"

[rules]
lease_seconds = {lease}
grace_seconds = {grace}
"""


class Rig(Trial):
    """A fleet of two models on engines of its own. A context manager.

    ``limit`` is what every engine takes at once. Workers are started by ``worker``.
    """

    chat_model = CHAT_MODEL
    embed_model = EMBED_MODEL

    def __init__(
        self,
        *engine_options: str,
        engines: int = 1,
        limit: int = 256,
        lease_seconds: float = 5.0,
        grace_seconds: float = 30.0,
        server_options: Mapping[str, str] = MappingProxyType({}),
        server: type[Server] = Server,
    ) -> None:
        self.limit = limit
        self._engine_options = engine_options
        self._engines = engines
        self._rules = (lease_seconds, grace_seconds)
        self._server_options = server_options
        self._server_type = server
        super().__init__("rig")
        self.engines: list[EngineProcess] = []
        self.workers: list[Processes] = []

    def _open(self) -> None:
        self.server = self._server_type(self.folder / "valkey", **self._server_options)
        self.keep(self.server.stop)
        self.server.start()
        self.settings = self.settings_at(self.server.url)
        self.store: Store = connect(self.settings)
        self.keep(self.store.client.close)
        for _ in range(self._engines):
            self.add_engine(*self._engine_options)

    def settings_at(self, url: str) -> Settings:
        """This fleet's settings with its server reached under ``url``."""
        lease, grace = self._rules
        path = self.folder / f"fleet-{url.rpartition(':')[2].partition('/')[0]}.toml"
        path.write_text(
            FLEET.format(
                chat=self.chat_model,
                embed=self.embed_model,
                url=url,
                prefix=PREFIX,
                lease=lease,
                grace=grace,
            )
        )
        return settings_module.load(self.environment(path))

    def environment(self, fleet: Path) -> dict[str, str]:
        """A program's environment: this one's without its fleet, with the rig's."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MODELSERVER_")}
        own = {
            "MODELSERVER_FLEET": str(fleet),
            "MODELSERVER_HOME": str(self.folder / "home"),
            "MODELSERVER_HOST": HOST,
        }
        return kept | own

    def add_engine(self, *options: str) -> EngineProcess:
        """Start one more engine and report it as ready for both models."""
        engine = EngineProcess("--model", self.chat_model, *options)
        self.keep(engine.kill)
        self.engines.append(engine)
        self.report(len(self.engines) - 1)
        return engine

    def report(
        self, number: int, state: EngineState = EngineState.READY, host: str = HOST
    ) -> None:
        """Say of an engine what a launcher would say, for both models."""
        process = self.engines[number]
        for model in (self.chat_model, self.embed_model):
            report_engine(
                self.store,
                EngineReport(
                    id=f"{model}-{number}",
                    model=model,
                    host=host,
                    state=state,
                    incarnation=1,
                    url=process.url,
                    pid=process.pid,
                    limit=self.limit,
                ),
            )

    def worker(
        self, settings: Settings | None = None, wait: bool = True, **extra: str
    ) -> Processes:
        """Start one worker; with ``wait`` it holds its lease when this returns.

        ``extra`` goes into its environment.
        """
        fleet = (settings or self.settings).fleet_file
        number = len(self.workers)
        argv = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-l", "INFO"]
        worker = Processes(
            [*argv, "-n", f"w{number}@{HOST}"],
            self.folder / f"worker-{number}.log",
            self.environment(fleet) | extra,
        )
        self.keep(worker.end)
        self.workers.append(worker)
        if wait:
            eventually(lambda: self.name_of(worker), within=START_SECONDS)
        return worker

    def program(self, argv: Iterable[str], name: str, **extra: str) -> Processes:
        """Start any other program in the rig's environment."""
        environment = self.environment(self.settings.fleet_file) | extra
        program = Processes(argv, self.folder / f"{name}.log", environment)
        self.keep(program.end)
        return program

    def name_of(self, worker: Processes) -> str:
        """The name under which a worker holds its lease, "" if it holds none."""
        for name, report in read_workers(self.store).items():
            if report["pid"] == worker.pid:
                return name
        return ""

    @property
    def url(self) -> str:
        """The server's address."""
        return self.server.url

    def living(self) -> int:
        """Workers and engines that run."""
        workers = sum(worker.alive for worker in self.workers)
        return workers + sum(engine.exit_code is None for engine in self.engines)

    def client(self) -> Celery:
        """A client application; its tasks are ``modelserver_tasks``."""
        return client(self.settings)

    def executed(self) -> dict[str, int]:
        """How often the engines that live have executed each prompt, by prompt."""
        total: dict[str, int] = {}
        for engine in self.engines:
            if engine.exit_code is None:
                for prompt, times in engine.stats()["executed"].items():
                    total[prompt] = total.get(prompt, 0) + times
        return total
