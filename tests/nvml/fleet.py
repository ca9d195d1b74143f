"""Real launchers of several hosts on one machine, each with GPUs of its own.

Engines are the test engine, which needs no memory; ``breathe`` writes what an engine
would hold into the file that its host's NVML reads.
"""

import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelserver.control.steer import steer
from modelserver.inventory import Gpu
from modelserver.policy.actions import Action
from modelserver.settings import load
from modelserver.store import connect
from modelserver.store.fleet.engines import read_engines
from modelserver.store.fleet.hosts import read_host
from modelserver.values import EngineReport, EngineState
from tests.nvml import StubGpu, StubNvml
from tests.support.processes import LauncherProcess, eventually, lives

#: What an engine with a whole GPU takes of it.
WHOLE_SHARE = 0.9
#: What is quiet for so long counts as settled, in seconds.
QUIET_SECONDS = 2.5
COMMAND = ["-m", "tests.engine.server", "--port", "{port}", "--model", "{model}"]


def section(name: str, **keys: Any) -> str:
    """A model of the fleet file, served by the test engine."""
    command = [sys.executable, *COMMAND]
    base = {"name": name, "engine": "command", "command": command, "drain_seconds": 1}
    lines = [f"{key} = {json.dumps(value)}" for key, value in {**base, **keys}.items()]
    return "\n".join(["[[models]]", *lines, ""])


class GpuFleet:
    """A fleet whose hosts are launchers with a stub of NVML."""

    def __init__(
        self,
        folder: Path,
        url: str,
        library: Path,
        hosts: Mapping[str, Sequence[StubGpu]],
        sections: Sequence[str],
    ) -> None:
        path = folder / "fleet.toml"
        rules = "[rules]\nlease_seconds = 3\nhost_grace_seconds = 2\n"
        path.write_text("\n".join([f'[redis]\nurl = "{url}"\n', rules, *sections]))
        self.environment = {"MODELSERVER_FLEET": str(path)}
        self.settings = load({**self.environment, "MODELSERVER_HOME": str(folder)})
        self.store = connect(self.settings)
        self.models = {each.name: each for each in self.settings.fleet.specs()}
        self.launchers: dict[str, LauncherProcess] = {}
        self.stubs: dict[str, StubNvml] = {}
        self.strangers: dict[str, dict[int, float]] = {}
        for host, gpus in hosts.items():
            home = folder / host
            home.mkdir()
            self.stubs[host] = StubNvml(library, home / "gpus", list(gpus)).write()
            self.launch(host)

    def launch(self, host: str) -> None:
        """Start the launcher of a host."""
        stub = self.stubs[host]
        names = {"MODELSERVER_HOST": host, "MODELSERVER_HOME": str(stub.path.parent)}
        environment = {**self.environment, **names, **stub.environment}
        self.launchers[host] = LauncherProcess(stub.path.parent, environment)

    def end(self) -> None:
        """End launchers and engines, whatever they are at."""
        for launcher in self.launchers.values():
            launcher.process.terminate()
        for launcher in self.launchers.values():
            launcher.process.terminate()
            launcher.wait(30)
        self.store.client.close()

    # The hosts.

    def stranger(self, host: str, index: int, pid: int, gib: float) -> None:
        """A process of somebody else takes memory; 0 gives it back."""
        held = self.strangers.setdefault(self.stubs[host].gpus[index].uuid, {})
        held[pid] = gib
        if not gib:
            del held[pid]
        self.breathe()

    def breathe(self) -> None:
        """Let engines hold what they were promised of their GPUs, as real ones do."""
        engines = read_engines(self.store)
        for host, stub in self.stubs.items():
            before = [dict(gpu.processes) for gpu in stub.gpus]
            for gpu in stub.gpus:
                gpu.processes = dict(self.strangers.get(gpu.uuid, {}))
            for engine in engines.values():
                if engine.host == host and engine.pid and self._holds(engine):
                    need = self.models[engine.model].gpu_memory_gib
                    for index in engine.gpus:
                        gpu = stub.gpus[index]
                        gpu.processes[engine.pid] = need or WHOLE_SHARE * gpu.total
            if before != [gpu.processes for gpu in stub.gpus]:
                stub.write()

    def _holds(self, engine: EngineReport) -> bool:
        there = engine.state in (EngineState.STARTING, EngineState.READY)
        return there and lives(engine.pid)

    def gpus(self, host: str) -> tuple[Gpu, ...]:
        """The GPUs as the launcher last reported them."""
        found = read_host(self.store, host)
        assert found, self.launchers[host].said()
        return found.gpus

    def seen(self) -> bool:
        """Whether every launcher reports its GPUs as they are now."""
        return all(
            [round(gpu.used / 2**20) for gpu in self.gpus(host)]
            == [round(each.held * 1024) for each in stub.gpus]
            for host, stub in self.stubs.items()
            if host in self.launchers
        )

    # Control.

    def steer(self) -> list[Action]:
        """One look of control."""
        return steer(self.store, self.settings, f"test-{random.random()}")

    def ready(self) -> dict[str, EngineReport]:
        """The engines that serve."""
        engines = read_engines(self.store).items()
        return {name: each for name, each in engines if each.serves}

    def until_ready(self, *engines: str, within: float = 40) -> None:
        """Steer until exactly these engines serve."""

        def so() -> bool:
            self.breathe()
            self.steer()
            assert set(self.ready()) == set(engines), read_engines(self.store)
            return True

        eventually(so, within)

    def settle(self, within: float = 90) -> list[Action]:
        """Steer until nothing changes any more; returns what control did."""
        done: list[Action] = []
        last, quiet_since = None, time.monotonic()

        def quiet() -> bool:
            nonlocal last, quiet_since
            self.breathe()
            found = self.steer()
            done.extend(found)
            engines = read_engines(self.store).values()
            now = [(e.id, e.state, e.incarnation) for e in engines]
            busy = found or now != last or not self.seen()
            last = now
            if busy or any(e.state is EngineState.STARTING for e in engines):
                quiet_since = time.monotonic()
            return time.monotonic() - quiet_since > QUIET_SECONDS

        eventually(quiet, within)
        return done
