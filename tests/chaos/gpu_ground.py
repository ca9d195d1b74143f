"""What a run about GPUs stands on: real launchers, workers, control, and requests."""

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from kombu.utils.json import loads

from modelserver.api import client
from modelserver.errors import StoreUnreachableError
from modelserver.policy.rebalance import state
from modelserver.store.fleet.control import read_memory, read_wishes
from modelserver.store.fleet.engines import read_engines
from modelserver.store.fleet.measurements import read_all_samples
from modelserver.values import EngineState, Outcome
from tests.chaos.load import FINAL, Watcher
from tests.engine.openai_api import answer_text
from tests.nvml import StubGpu, build
from tests.nvml.fleet import GpuFleet
from tests.support.processes import (
    ROOT,
    ValkeyProcess,
    end,
    eventually,
    lives,
)
from tests.support.trial import Trial
from tests.support.workers import WorkerProcess

#: How often control looks, in seconds.
STEER_SECONDS = 1.0
#: How often everything is watched, in seconds.
WATCH_SECONDS = 0.1


class Requests:
    """Requests to one model, each with a prompt of its own, and what became of them."""

    def __init__(self, ground: "Ground", model: str) -> None:
        self._ground, self._model = ground, model
        self._numbers = itertools.count()
        self.prompts: dict[str, str] = {}

    def send(self, number: int = 1) -> list[str]:
        """Submit so many; their ids."""
        ids = []
        for _ in range(number):
            prompt = f"{self._model} {next(self._numbers)}"
            sent = self._ground.complete.apply_async((prompt,), {"model": self._model})
            self.prompts[sent.id] = prompt
            ids.append(sent.id)
        return ids

    def answered(self) -> int:
        """How many have an answer by now."""
        return sum(each in self._ground.watcher.answered for each in self.prompts)

    def seconds(self, request: str, within: float) -> float:
        """How long from now until this request is answered."""
        began, answered = time.monotonic(), self._ground.watcher.answered
        eventually(lambda: request in answered, within)
        return answered[request] - began

    def account(self) -> dict[str, int]:
        """Sent, lost, wrong and stored twice."""
        keys, stored = list(self.prompts), self._ground.watcher.stored
        names = [self._ground.app.backend.get_key_for_task(each) for each in keys]
        values: Any = self._ground.fleet.store.client.mget(names)
        metas = [loads(value) if value else {} for value in values]
        final = [meta.get("status") in FINAL for meta in metas]
        wrong = [
            meta.get("result") != answer_text(self.prompts[key])
            for key, meta in zip(keys, metas, strict=True)
            if meta.get("status") in FINAL
        ]
        return {
            "sent": len(keys),
            "lost": final.count(False),
            "wrong": wrong.count(True),
            "stored twice": sum(stored[key] > 1 for key in keys),
        }


class Trickle:
    """One request to a model in every ``pause`` seconds, from a thread."""

    def __init__(self, requests: Requests, pause: float) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(requests, pause))
        self._thread.start()

    def _run(self, requests: Requests, pause: float) -> None:
        while not self._over.wait(pause):
            requests.send()

    def stop(self) -> None:
        """Send no more."""
        self._over.set()
        self._thread.join()


class Ground(Trial):
    """Hosts with GPUs, a worker on each, and control in a thread. A context manager.

    ``crowded`` counts looks at which two engines held one whole GPU; ``wanted`` and
    ``serving`` are the numbers of engines that each model was seen with.
    """

    def __init__(
        self, hosts: Mapping[str, Sequence[StubGpu]], sections: Sequence[str]
    ) -> None:
        self._hosts, self._sections = hosts, sections
        super().__init__("gpus")
        self._over = threading.Event()
        self.crowded = 0
        self.wanted: dict[str, set[int]] = {}
        self.serving: dict[str, set[int]] = {}

    def _open(self) -> None:
        (self.folder / "valkey").mkdir()
        server = ValkeyProcess(self.folder / "valkey").start()
        self.keep(server.stop)
        library = build(self.folder / "nvml")
        self.fleet = GpuFleet(
            self.folder, server.url, library, self._hosts, self._sections
        )
        self.keep(self.fleet.end)
        for host in self._hosts:
            self._worker(host)
        self.app = client(self.fleet.settings)
        self.keep(self.app.close)
        self.complete = self.app.modelserver_tasks[0]
        self.watcher = Watcher(server.url)
        self.keep(self.watcher.stop)
        for work, pause in ((self._steer, STEER_SECONDS), (self._watch, WATCH_SECONDS)):
            thread = threading.Thread(target=self._often, args=(work, pause))
            thread.start()
            self.keep(thread.join)
        self.keep(self._over.set)

    def _worker(self, host: str) -> None:
        home = self.folder / host
        names = {"MODELSERVER_HOST": host, "MODELSERVER_HOME": str(home)}
        environment = {**self.fleet.environment, **names}
        worker = WorkerProcess(home / "worker.log", environment, f"{host}@{host}")
        self.keep(end, worker.process)

    def _often(self, work: Any, pause: float) -> None:
        while not self._over.wait(pause):
            with suppress(StoreUnreachableError):
                work()

    def _steer(self) -> None:
        self.fleet.breathe()
        self.fleet.steer()

    def _watch(self) -> None:
        store = self.fleet.store
        engines, models = read_engines(store).values(), self.fleet.models
        held = Counter(
            (engine.host, index)
            for engine in engines
            for index in engine.gpus
            if not models[engine.model].share_gpu
            and engine.state is not EngineState.PENDING
            and engine.pid
            and lives(engine.pid)
        )
        self.crowded += sum(number > 1 for number in held.values())
        wanted = Counter(wish.spec.model for wish in read_wishes(store).values())
        serving = Counter(each.model for each in engines if each.serves)
        for name in models:
            self.wanted.setdefault(name, set()).add(wanted[name])
            self.serving.setdefault(name, set()).add(serving[name])

    def forget(self) -> None:
        """Count engines from now on."""
        self.wanted.clear()
        self.serving.clear()

    def apply(self, before: str, after: str) -> None:
        """Change the fleet file and have it applied, as an operator does."""
        path = Path(self.fleet.environment["MODELSERVER_FLEET"])
        text = path.read_text()
        assert before in text, before
        path.write_text(text.replace(before, after))
        argv = [
            sys.executable,
            "-m",
            "modelserver.cli",
            "apply",
            "--yes",
            "--wait",
            "0",
        ]
        home = {"MODELSERVER_HOME": str(self.folder), **self.fleet.environment}
        done = subprocess.run(
            argv, cwd=ROOT, env={**os.environ, **home}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def past(self) -> list[state.PastMove]:
        """The moves of GPUs from one model to another that control has decided."""
        text = read_memory(self.fleet.store).get("moves", "{}")
        past = state.from_json(json.loads(text)).past
        return [each for each in past if each.donor]

    def failures(self, *engines: str) -> int:
        """Requests that did not end well on these engines."""
        found = read_all_samples(self.fleet.store, list(engines))
        every = [sample for samples in found.values() for sample in samples]
        return sum(sample.outcome is not Outcome.OK for sample in every)
