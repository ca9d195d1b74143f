"""Faults of a host that no engine should notice: its clock, its launcher, its ports."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.report import Goal, Report
from modelserver.settings import load
from modelserver.store.fleet.hosts import read_hosts
from modelserver.values import EngineReport, EngineState
from tests.chaos.hosts import COLUMNS, PATIENCE, Struck, Traffic, hosts_of, report
from tests.chaos.hosts import account as account_of
from tests.chaos.server import find_faketime
from tests.support.fleets import Hosts, model
from tests.support.processes import ROOT, LauncherProcess, end, eventually

#: By how much the clock of the host steps, one step after the other.
STEPS = ("+3s", "-3s", "+3600s", "-3600s")
#: How long each step is watched, in seconds: longer than any look of the launcher.
STEP_SECONDS = 8.0
#: How long the launcher is silent: far beyond its lease of 2 s, within the grace of 60.
AWAY_SECONDS = 20.0
#: A server that answers everything as an engine would, with a text of its own.
STRANGER = """
import http.server, json, sys

class Stranger(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = {"choices": [{"text": "stolen", "finish_reason": "stop"}]}
        body = json.dumps(body | {"usage": {"completion_tokens": 1}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
    def log_message(self, *_): pass

place = ("127.0.0.1", int(sys.argv[1]))
http.server.ThreadingHTTPServer(place, Stranger).serve_forever()
"""
#: Engines that get a port while a stranger waits for it.
STARTS = 3


def clock_stepped() -> Report:
    """The wall clock of a launcher steps by 3 s and by an hour: its engine goes on.

    By libfaketime, on the launcher alone; says so where it is not installed. The engine
    has a child. After the last step a new launcher, whose clock is an hour off, adopts
    it.
    """
    library = find_faketime()
    if library is None:
        note = "NOT RUN: libfaketime is not installed (apt-get install libfaketime)"
        return Report(COLUMNS, (), (), (note,))
    with hosts_of(model("m", "--spawn-child")) as (hosts, _):
        clock = hosts.folder / "clock"
        _set(clock, "+0s")
        _launch_with_clock(hosts, library, clock)
        hosts.worker("a")
        return report(list(_steps(hosts, library, clock)))


def _steps(hosts: Hosts, library: Path, clock: Path) -> Iterator[Struck]:
    before = hosts.ready("m-0", within=PATIENCE)
    for step in STEPS:
        with Traffic(hosts) as traffic:
            _set(clock, step)
            time.sleep(STEP_SECONDS)
        yield account_of(f"clock {step}", traffic, before, hosts.engine("m-0"))
    with Traffic(hosts) as traffic:
        old = hosts.launchers["a"]
        old.signal(signal.SIGKILL)
        old.wait()
        killed_at = hosts.store.now()
        _launch_with_clock(hosts, library, clock)
        eventually(lambda: hosts.ready("m-0").alive_at > killed_at, PATIENCE)
        time.sleep(STEP_SECONDS)
    yield account_of("a new launcher", traffic, before, hosts.engine("m-0"))


def _set(clock: Path, shift: str) -> None:
    new = clock.with_suffix(".new")
    new.write_text(shift + "\n")
    new.replace(clock)


def _launch_with_clock(hosts: Hosts, library: Path, clock: Path) -> None:
    hosts.launchers["a"] = LauncherProcess(
        hosts.folder / "a",
        hosts.environment("a")
        | {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
        },
    )


def launcher_away() -> Report:
    """A launcher is silent for 20 s while another host has room: its engine stays.

    Stopped by SIGSTOP, and killed and started again after that time.
    """
    with hosts_of(model("m")) as (hosts, _):
        hosts.launch("a")
        hosts.worker("a")
        before = hosts.ready("m-0", within=PATIENCE)
        hosts.launch("b")
        hosts.worker("b")
        eventually(lambda: len(read_hosts(hosts.store)) == 2, PATIENCE)
        struck = []
        for fault in ("stopped", "killed"):
            with Traffic(hosts) as traffic:
                _silence(hosts, fault)
                eventually(lambda: len(read_hosts(hosts.store)) == 2, PATIENCE)
                time.sleep(STEP_SECONDS)
            after = hosts.engine("m-0")
            struck.append(account_of(f"launcher {fault}", traffic, before, after))
        moved = hosts.launchers["b"].said().count("STARTING")
        return report(struck, Goal("engines started elsewhere", moved, 0, at_most=True))


def _silence(hosts: Hosts, fault: str) -> None:
    launcher = hosts.launchers["a"]
    if fault == "stopped":
        launcher.signal(signal.SIGSTOP)
        time.sleep(AWAY_SECONDS)
        launcher.signal(signal.SIGCONT)
        return
    launcher.signal(signal.SIGKILL)
    launcher.wait()
    time.sleep(AWAY_SECONDS)
    hosts.launch("a")


def port_stranger() -> Report:
    """A stranger listens on the port that an engine was given, and answers as one.

    The engine needs ten seconds before it listens. Every request is answered by the
    fleet's own engine, which gets another port; the stranger answers with a text that
    would be counted as wrong.
    """
    rows, lost = [], 0
    asked = 0
    for number in range(1, STARTS + 1):
        with hosts_of(_late_model()) as (hosts, _):
            hosts.worker("a")
            hosts.launch("a")
            port = eventually(lambda: _given_port(hosts), PATIENCE)
            with _stranger(port), Traffic(hosts) as traffic:
                engine = eventually(lambda: _served(hosts), PATIENCE)
                time.sleep(STEP_SECONDS / 2)
            outcomes = traffic.outcomes()
        failed = traffic.sent - outcomes["right"]
        lost += failed
        asked += engine.url.endswith(f":{port}")
        rows.append((f"start {number}", traffic.sent, outcomes["right"], failed))
    return Report(
        COLUMNS[:-1],
        tuple(rows),
        (
            Goal("requests failed", lost, 0, at_most=True),
            Goal("strangers taken for engines", asked, 0, at_most=True),
        ),
    )


def _late_model() -> str:
    """A model whose engines need ten seconds before they listen."""
    serve = f"exec {sys.executable} -m tests.engine.server --port {{port}} --model m"
    return model("m", command=["sh", "-c", f"sleep 10; {serve}"])


def _given_port(hosts: Hosts) -> int:
    """The port of the engine that its launcher has just started."""
    record = load(hosts.environment("a")).run_dir / "engines" / "m-0.json"
    return int(json.loads(record.read_text())["port"]) if record.exists() else 0


def _served(hosts: Hosts) -> EngineReport | None:
    engine = hosts.engine("m-0")
    return engine if engine and engine.state is EngineState.READY else None


@contextmanager
def _stranger(port: int) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", STRANGER, str(port)], cwd=ROOT)
    try:
        yield
    finally:
        end(process)
