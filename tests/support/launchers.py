"""A host of a fleet: real launchers, and engines that fail on demand."""

import json
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from modelserver.settings import load
from modelserver.store import Store, connect
from modelserver.store.fleet.control import hold_control, report_steered, write_wishes
from modelserver.store.fleet.engines import read_engines
from modelserver.values import EngineReport, EngineSpec, EngineState, Wish
from tests.support.processes import (
    LauncherProcess,
    ValkeyProcess,
    carriers,
    end,
    eventually,
)

HOST = "h1"
#: Marks all processes of one test, engines included.
#: Engines inherit it, as they do LC_ALL.
MARK = "LC_MODELSERVER_TEST_MARK"


@dataclass
class Site:
    """One host of a fleet: its store, its launchers, and all processes it leaves."""

    folder: Path
    store: Store
    mark: str
    wishes: dict[str, Wish] = field(default_factory=dict)
    launchers: list[LauncherProcess] = field(default_factory=list)

    @property
    def run_dir(self) -> Path:
        return load(self.environment).run_dir

    @property
    def environment(self) -> dict[str, str]:
        return {
            "MODELSERVER_FLEET": str(self.folder / "fleet.toml"),
            "MODELSERVER_HOME": str(self.folder),
            "MODELSERVER_HOST": HOST,
            MARK: self.mark,
        }

    def launch(self) -> LauncherProcess:
        launcher = LauncherProcess(self.folder, self.environment)
        self.launchers.append(launcher)
        return launcher

    def pin(self, model: str, **place: Any) -> None:
        """Add a place to the fleet file; before the first launcher starts."""
        lines = [f"{key} = {json.dumps(value)}" for key, value in place.items()]
        with (self.folder / "fleet.toml").open("a") as file:
            file.write("\n".join(["[[engines]]", f'model = "{model}"', *lines, ""]))

    def wish(self, engine: str, wish: Wish | None) -> None:
        with hold_control(self.store, "test", 5) as token:
            report_steered(self.store, "test")
            assert write_wishes(self.store, token, {engine: wish})

    def want(self, model: str, **place: Any) -> Wish:
        wish = Wish(EngineSpec(f"{model}-0", model, HOST, **place))
        self.wish(wish.spec.id, wish)
        return wish

    def engine(self, name: str) -> EngineReport | None:
        return read_engines(self.store).get(name)

    def reaches(
        self, name: str, state: EngineState, incarnation: int = 0, within: float = 60
    ) -> EngineReport:
        def there() -> EngineReport | None:
            engine = self.engine(name)
            assert engine, f"no report of {name}; launcher said {self.said()}"
            assert engine.state is state, f"{engine}; launcher said {self.said()}"
            return engine if engine.incarnation >= incarnation else None

        return eventually(there, within)

    def said(self) -> str:
        return self.launchers[-1].said()

    def processes(self) -> list[psutil.Process]:
        """Whatever this test has started through its launchers, and they too."""
        return carriers(MARK, self.mark)


def section(name: str, *options: str, **keys: Any) -> str:
    """A model of the fleet file, served by the fault-injecting engine."""
    command = [sys.executable, "-m", "tests.engine.server", "--port", "{port}"]
    keys = {
        "name": name,
        "engine": "command",
        "command": [*command, "--model", "{model}", *options],
        "start_seconds": 20,
        "drain_seconds": 5,
        **keys,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    return "\n".join(["[[models]]", *lines, ""])


@contextmanager
def open_site(tmp_path: Path, valkey: ValkeyProcess, *more: str) -> Iterator[Site]:
    """A fleet of test engines, with ``more`` sections; nothing of it stays behind."""
    path = tmp_path / "fleet.toml"
    sections = [
        f'[redis]\nurl = "{valkey.url}"\n',
        "[rules]\nlease_seconds = 2\n",
        section("good", "--spawn-child"),
        section("other"),
        # Longer than any test waits: what ends before has not been drained.
        section("patient", drain_seconds=3_600),
        section("hasty", drain_seconds=1),
        section("stuck", "--never-ready", start_seconds=5),
        section("wrong", "--no-such-option"),
        section("bare", engine="sglang-cpu", path="builtin:tiny-chat"),
        section("foreign", engine="external"),
        *more,
    ]
    path.write_text("\n".join(sections))
    settings = load({"MODELSERVER_FLEET": str(path), "MODELSERVER_HOME": "/x"})
    store = connect(settings)
    site = Site(tmp_path, store, mark=str(tmp_path))
    try:
        yield site
    finally:
        for launcher in site.launchers:
            end(launcher.process)
        for process in site.processes():
            process.kill()
        store.client.close()


def stats(engine: EngineReport) -> Any:
    with urllib.request.urlopen(engine.url + "/stats", timeout=30) as answer:
        return json.load(answer)


def in_flight(site: Site, engine: str, count: int, idle: float = 60.0) -> None:
    """Have a worker report so many requests on an engine."""
    store, keys = site.store, site.store.keys
    report: dict[str, Any] = {"node": "w", "host": HOST, "pid": 1, "held": count}
    report["loads"] = {engine: [count, 1.0, idle]}
    store.client.sadd(keys.workers, "w")
    store.client.set(keys.worker("w"), json.dumps(report), ex=60)


def fault(engine: EngineReport, **values: Any) -> None:
    body = json.dumps(values).encode()
    urllib.request.urlopen(engine.url + "/fault", data=body, timeout=30).close()
