"""The whole product as a user runs it: ``modelserver up`` on a fleet file."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from celery import Celery
from celery.result import AsyncResult

from modelserver.api import InferenceTask, client
from modelserver.page.password import FLOWER_USER, find_password
from modelserver.settings import Settings, load
from modelserver.store import Store, connect
from modelserver.store.fleet.engines import read_engines
from modelserver.store.fleet.workers import read_loads
from modelserver.values import EngineReport, EngineState
from tests.support.processes import ROOT, carriers, end, eventually

#: How long two engines may take to start, in seconds; mostly they take 10 to 25.
START_SECONDS = 180.0
#: How long an answer may take, in seconds, even when an engine starts in between.
PATIENCE = 90.0
CHAT, EMBED = "tiny-chat-0", "tiny-embed-0"
#: Says the same each time, and nothing but its number of tokens ends it.
EXACT = {"temperature": 0, "ignore_eos": True}

FLEET = """
[[models]]
name = "tiny-chat"
path = "builtin:tiny-chat"
engine = "sglang-cpu"
context_length = 4096
drain_seconds = 5

[[models]]
name = "tiny-embed"
kind = "embedding"
path = "builtin:tiny-embed"
engine = "sglang-cpu"
context_length = 4096
drain_seconds = 5

[rules]
hang_seconds = 12
relaunch_pause_seconds = 2
grace_seconds = 5
"""


def borrowed_home(folder: Path, home: Path) -> Path:
    """A home in ``folder`` with the engines and models of the user's own."""
    borrowed = folder / "home"
    borrowed.mkdir()
    for name in ("engines", "models"):
        (home / name).mkdir(parents=True, exist_ok=True)
        (borrowed / name).symlink_to(home / name)
    return borrowed


def clean_environment(**own: str) -> dict[str, str]:
    """This process's environment with no settings of modelserver's but ``own``."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MODELSERVER_")}
    return kept | own


class Product:
    """``modelserver up`` as a process, and a client beside it."""

    def __init__(
        self,
        folder: Path,
        home: Path,
        text: str = FLEET,
        engines: Sequence[str] = (CHAT, EMBED),
    ) -> None:
        file = folder / "fleet.toml"
        file.write_text(text)
        self._engines = engines
        self.environment = {
            "MODELSERVER_FLEET": str(file),
            "MODELSERVER_HOME": str(borrowed_home(folder, home)),
        }
        self.settings: Settings = load(self.environment)
        self.log = folder / "up.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "modelserver.cli", "up"],
                cwd=ROOT,
                env=clean_environment(**self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.store: Store
        self.app: Celery

    def await_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait until all engines can be used."""
        eventually(self._answers, seconds)
        self.store = connect(self.settings)
        self.app = client(self.settings)
        eventually(self._all_ready, seconds)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.said()
        return (self.settings.run_dir / "valkey.json").exists()

    def _all_ready(self) -> bool:
        assert self.process.poll() is None, self.said()
        states = {
            name: engine.state for name, engine in read_engines(self.store).items()
        }
        if EngineState.FATAL in states.values():
            raise RuntimeError(self.said())
        assert states == dict.fromkeys(self._engines, EngineState.READY), self.said()
        return True

    def said(self) -> str:
        """All that ``up`` has printed."""
        return self.log.read_text()

    @property
    def api_url(self) -> str:
        """Where ``up`` says that OpenAI's API is."""
        found = re.search(r"OpenAI API at (\S+)", self.said())
        assert found, self.said()
        return found[1]

    @property
    def flower_url(self) -> str:
        """Where ``up`` says that Flower is, with its user and its password."""
        found = re.search(r"Flower at http://([^\s,]+)", self.said())
        assert found, self.said()
        return f"http://{FLOWER_USER}:{find_password(self.settings).text}@{found[1]}"

    # Requests.

    @property
    def complete(self) -> InferenceTask:
        """The client's task."""
        return self._tasks[0]

    @property
    def chat(self) -> InferenceTask:
        """The client's task."""
        return self._tasks[1]

    @property
    def embed(self) -> InferenceTask:
        """The client's task."""
        return self._tasks[2]

    @property
    def _tasks(self) -> Sequence[InferenceTask]:
        tasks: Sequence[InferenceTask] = self.app.modelserver_tasks
        return tasks

    def send(
        self, number: int, max_tokens: int, name: str = "story", **options: Any
    ) -> list[AsyncResult]:
        """Send so many different completions of so many tokens."""
        return [
            self.complete.apply_async(
                (f"{name} {place}",), EXACT | {"max_tokens": max_tokens}, **options
            )
            for place in range(number)
        ]

    def give_up(self, results: Sequence[AsyncResult]) -> None:
        """Revoke requests and wait until the chat engine has dropped them."""
        self.app.control.revoke([result.id for result in results], terminate=True)
        eventually(lambda: not self.running(), PATIENCE)

    # The engines.

    def engine(self, name: str = CHAT) -> EngineReport:
        """An engine as its launcher reports it."""
        return read_engines(self.store)[name]

    def is_ready(self, incarnation: int, name: str = CHAT) -> bool:
        """Whether this start of an engine can be used."""
        engine = self.engine(name)
        return engine.serves and engine.incarnation == incarnation

    def running(self) -> int:
        """Requests that the chat engine works on, by its own account."""
        asked = self._to_engine(CHAT, "/v1/loads")
        with urllib.request.urlopen(asked, timeout=30) as got:
            return int(json.load(got)["loads"][0]["num_running_reqs"])

    def aborted(self) -> int:
        """Requests that the chat engine gave up since it started."""
        with urllib.request.urlopen(self.engine().url + "/metrics", timeout=30) as got:
            text = got.read().decode()
        counters = re.findall(
            r"^sglang:num_aborted_requests_total.* (\S+)$", text, re.M
        )
        return int(sum(map(float, counters)))

    def last_decision(self, action: str) -> dict[str, str]:
        """What control decided of this kind last, and from what."""
        client: Any = self.store.client
        decisions = client.xrevrange(self.store.keys.decisions)
        return next(dict(each) for _, each in decisions if each["action"] == action)

    def ask_engine(self, name: str, path: str, body: Mapping[str, Any]) -> Any:
        """Ask an engine itself, past workers and queues."""
        request = self._to_engine(name, path, json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=PATIENCE) as got:
            return json.load(got)

    def key(self, name: str = CHAT) -> str:
        """The API key of an engine as it runs now."""
        address = self.engine(name).url.removeprefix("http://")
        return self.settings.keyring().key(address)

    def status_without_key(self, name: str) -> int:
        """The status by which an engine refuses who has no key, 200 if it does not."""
        try:
            with urllib.request.urlopen(self.engine(name).url + "/v1/models") as got:
                return int(got.status)
        except urllib.error.HTTPError as error:
            return error.code

    def in_flight(self, name: str) -> int:
        """Requests that the workers have on an engine."""
        load = read_loads(self.store).get(name)
        return load.inflight if load else 0

    def _to_engine(
        self, name: str, path: str, body: bytes | None = None
    ) -> urllib.request.Request:
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {self.key(name)}",
        }
        url = self.engine(name).url + path
        return urllib.request.Request(url, body, headers)

    # Other processes.

    def run(
        self, *argv: str, folder: Path = ROOT
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program of this fleet to its end."""
        return subprocess.run(
            argv,
            cwd=folder,
            env=clean_environment(**self.environment),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def command(self, *arguments: str) -> str:
        """What a command of modelserver's prints."""
        done = self.run(sys.executable, "-m", "modelserver.cli", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def processes(self) -> list[psutil.Process]:
        """Every process of this fleet, ``up`` among them."""
        return carriers("MODELSERVER_FLEET", self.environment["MODELSERVER_FLEET"])

    def close(self) -> None:
        """Ask ``up`` to end; AssertionError if anything of it stays behind."""
        if hasattr(self, "app"):
            self.app.backend.result_consumer.stop()
            self.app.close()
            self.store.client.close()
        try:
            self.process.send_signal(signal.SIGTERM)
            code = self.process.wait(PATIENCE)
        finally:
            end(self.process)
            left = self.processes()
            for process in left:
                process.kill()
        assert not left, f"left behind: {left}\n{self.said()}"
        assert code == 0, self.said()
