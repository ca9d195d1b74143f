"""A fleet of several hosts on this machine: launchers, workers, control, a client."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from celery import Celery

from modelserver.api import InferenceTask, client
from modelserver.control.steer import steer
from modelserver.errors import StoreUnreachableError
from modelserver.settings import Settings, load
from modelserver.store import Store, connect
from modelserver.store.fleet.engines import read_engines
from modelserver.store.fleet.hosts import read_hosts
from modelserver.store.fleet.workers import read_workers
from modelserver.values import EngineReport
from tests.support.processes import (
    ROOT,
    LauncherProcess,
    carriers,
    end,
    eventually,
)
from tests.support.workers import WorkerProcess, celery_command

#: Marks all processes of one test; engines inherit it as they do LC_ALL.
MARK = "LC_MODELSERVER_TEST_MARK"
CLI = [sys.executable, "-m", "modelserver.cli"]
#: How often control looks, in seconds.
STEER_SECONDS = 0.2


def model(name: str, *options: str, **keys: Any) -> str:
    """A model of the fleet file, served by the fault-injecting engine."""
    command = [sys.executable, "-m", "tests.engine.server", "--port", "{port}"]
    keys = {
        "name": name,
        "engine": "command",
        "command": [*command, "--model", "{model}", *options],
        "start_seconds": 30,
        "drain_seconds": 20,
        **keys,
    }
    lines = [f"{key} = {_toml(value)}" for key, value in keys.items()]
    return "\n".join(["[[models]]", *lines, ""])


def _toml(value: Any) -> str:
    if not isinstance(value, dict):
        return json.dumps(value)
    pairs = ", ".join(f"{key} = {_toml(each)}" for key, each in value.items())
    return "{ " + pairs + " }"


@dataclass
class Hosts:
    """The hosts of one fleet. Each has a home folder of its own."""

    folder: Path
    head: str
    store: Store = field(init=False)
    launchers: dict[str, LauncherProcess] = field(default_factory=dict)
    workers: list[WorkerProcess] = field(default_factory=list)
    beats: "list[subprocess.Popen[bytes]]" = field(default_factory=list)
    #: What hosts sign their fleet with, "" where each has a key of its own.
    fleet_key: str = "the key of a fleet that tests run"
    _over: threading.Event = field(default_factory=threading.Event)
    _client: Celery | None = None

    def write(self, *models: str, file: str = "fleet.toml") -> Path:
        """Write a fleet file of these models."""
        path = self.folder / file
        path.write_text(self.head + "\n".join(models))
        return path

    def environment(self, host: str = "", file: str = "fleet.toml") -> dict[str, str]:
        home = self.folder / (host or "operator")
        home.mkdir(exist_ok=True)
        return {
            "MODELSERVER_FLEET": str(self.folder / file),
            "MODELSERVER_HOME": str(home),
            "MODELSERVER_HOST": host or "operator",
            "MODELSERVER_FLEET_KEY": self.fleet_key,
            MARK: str(self.folder),
        }

    @property
    def settings(self) -> Settings:
        return load(self.environment())

    # Programs.

    def launch(
        self, host: str, file: str = "fleet.toml", root: Path = ROOT
    ) -> LauncherProcess:
        environment = self.environment(host, file)
        launcher = LauncherProcess(self.folder / host, environment, root)
        self.launchers[host] = launcher
        return launcher

    def worker(self, host: str, name: str = "", root: Path = ROOT) -> WorkerProcess:
        """Start a worker, of the version in ``root``; wait until it has its lease."""
        name = name or host
        log = self.folder / f"worker-{name}.log"
        environment = self.environment(host)
        worker = WorkerProcess(log, environment, f"{name}@{host}", root=root)
        self.workers.append(worker)

        def up() -> bool:
            pids = [each["pid"] for each in read_workers(self.store).values()]
            return worker.pid in pids and "ready." in worker.said()

        eventually(up, 90)
        return worker

    def beat(self) -> "subprocess.Popen[bytes]":
        """Start a beat, so that workers are control, as in production."""
        name = f"beat-{len(self.beats)}"
        schedule = str(self.folder / f"{name}-schedule")
        with (self.folder / f"{name}.log").open("ab") as log:
            beat = subprocess.Popen(
                celery_command("beat", "--schedule", schedule),
                cwd=ROOT,
                env={**os.environ, **self.environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.beats.append(beat)
        return beat

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """The command line, as an operator uses it."""
        return subprocess.run(
            [*CLI, *arguments],
            cwd=ROOT,
            env={**os.environ, **self.environment()},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def apply(self, *models: str, options: tuple[str, ...] = ()) -> str:
        """Write the file, apply it without asking, and say what that printed."""
        self.write(*models)
        done = self.run("apply", "--yes", *options)
        assert done.returncode == 0, done.stdout + done.stderr + self.said()
        return done.stdout

    def kill(self, host: str) -> None:
        """End a host's launcher and all of its engines at once, as a power cut does."""
        pids = [e.pid for e in read_engines(self.store).values() if e.host == host]
        self.launchers[host].process.kill()
        self.launchers[host].wait()
        for pid in filter(None, pids):
            with suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()

    # What there is to see.

    @property
    def complete(self) -> InferenceTask:
        """A client's task, of one client for the whole test."""
        if self._client is None:
            self._client = client(self.settings)
        task: InferenceTask = self._client.modelserver_tasks[0]
        return task

    def engine(self, name: str) -> EngineReport | None:
        return read_engines(self.store).get(name)

    def ready(
        self, name: str, incarnation: int = 1, within: float = 40
    ) -> EngineReport:
        """Wait until an engine serves on a live host."""

        def there() -> EngineReport | None:
            engine = self.engine(name)
            assert engine, f"no report of {name}: {self.said()}"
            live = {host.name for host in read_hosts(self.store)}
            serves = engine.serves and engine.host in live
            return engine if serves and engine.incarnation >= incarnation else None

        return eventually(there, within)

    def said(self) -> str:
        return "\n".join(launcher.said() for launcher in self.launchers.values())

    def steer(self, settings: Settings) -> None:
        """Be control until the test is over."""
        store = connect(settings)
        while not self._over.wait(STEER_SECONDS):
            with suppress(StoreUnreachableError), store.reachable():
                steer(store, settings, "test")
        store.client.close()

    def close(self) -> None:
        """End every process and connection."""
        self._over.set()
        for beat in self.beats:
            end(beat)
        for launcher in self.launchers.values():
            end(launcher.process)
        for worker in self.workers:
            end(worker.process)
        for process in carriers(MARK, str(self.folder)):
            process.kill()
        if self._client is not None:
            self._client.backend.result_consumer.stop()
            self._client.close()
        self.store.client.close()


def make_hosts(folder: Path, url: str, *models: str, extra: str = "") -> Hosts:
    """A fleet of these models; nothing runs yet, and ``close`` ends what will."""
    head = f'[redis]\nurl = "{url}"\n[rules]\nlease_seconds = 2\n{extra}\n'
    hosts = Hosts(folder, head)
    hosts.write(*models)
    hosts.store = connect(hosts.settings)
    return hosts


@contextmanager
def open_hosts(
    folder: Path, url: str, *models: str, extra: str = ""
) -> Iterator[Hosts]:
    """The same, with control in a thread of the test's; no launcher runs yet."""
    hosts = make_hosts(folder, url, *models, extra=extra)
    control = threading.Thread(target=hosts.steer, args=(hosts.settings,))
    control.start()
    try:
        yield hosts
    finally:
        hosts.close()
        control.join()
