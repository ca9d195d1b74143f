"""Two neighbouring versions in one fleet: a rolling upgrade, and back."""

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.report import Report
from modelserver.store.fleet.hosts import read_host
from modelserver.values import EngineReport
from tests.chaos.hosts import PATIENCE, Struck, Traffic, report
from tests.chaos.hosts import account as account_of
from tests.support.fleets import Hosts, make_hosts, model
from tests.support.processes import ROOT, ValkeyProcess, eventually
from tests.support.workers import WorkerProcess

#: The older version, unless COMMIT in the environment names another.
BEFORE = "HEAD~1"
#: How long each stage is watched, in seconds.
STAGE_SECONDS = 20.0
#: One engine for each host.
PLACES = "".join(f'\n[[engines]]\nmodel = "m"\nhost = "{host}"\n' for host in "ab")


def two_versions() -> Report:
    """Host a runs the commit before, host b this one; a is upgraded, and rolled back.

    Launcher and worker of host a are replaced one after the other under load, as the
    docs say: SIGQUIT leaves the engine to the next launcher. Workers of both versions
    are control in turn. COMMIT in the environment names another older version.
    """
    commit = os.environ.get("COMMIT", BEFORE)
    with tempfile.TemporaryDirectory(prefix="modelserver-chaos-") as name:
        folder = Path(name)
        for each in ("valkey", "before", "fleet"):
            (folder / each).mkdir()
        _check_out(commit, folder / "before")
        valkey = ValkeyProcess(folder / "valkey").start()
        hosts = make_hosts(folder / "fleet", valkey.url, model("m") + PLACES)
        # Which of them has a key is not the question here.
        hosts.fleet_key = ""
        try:
            struck = _stages(hosts, folder / "before")
        finally:
            hosts.close()
            valkey.stop()
    return report(struck, notes=[f"the version before is {_describe(commit)}"])


def _check_out(commit: str, folder: Path) -> None:
    archive = subprocess.run(
        ["git", "archive", commit], cwd=ROOT, capture_output=True, check=True
    )
    subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, check=True)


def _describe(commit: str) -> str:
    show = ["git", "log", "-1", "--format=%h %s", commit]
    done = subprocess.run(show, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _stages(hosts: Hosts, old: Path) -> list[Struck]:
    worker = hosts.worker("a", root=old)
    hosts.launch("a", root=old)
    hosts.worker("b")
    hosts.launch("b")
    hosts.beat()
    before = {name: hosts.ready(name, within=PATIENCE) for name in ("m-0", "m-1")}
    struck = []
    for stage, root in (
        ("two versions", None),
        ("a is upgraded", ROOT),
        ("a is rolled back", old),
    ):
        with Traffic(hosts) as traffic:
            if root is not None:
                worker = _replace(hosts, worker, root)
            time.sleep(STAGE_SECONDS)
        struck += _accounts(stage, hosts, traffic, before)
    return struck


def _replace(hosts: Hosts, worker: WorkerProcess, root: Path) -> WorkerProcess:
    """Run another version's launcher and worker on host a."""
    launcher = hosts.launchers["a"]
    launcher.signal(signal.SIGQUIT)
    launcher.wait()
    launcher = hosts.launch("a", root=root)

    def is_back() -> bool:
        host = read_host(hosts.store, "a")
        return host is not None and host.pid == launcher.process.pid

    eventually(is_back, PATIENCE)
    worker.signal(signal.SIGTERM)
    worker.wait(PATIENCE)
    return hosts.worker("a", name=f"a{len(hosts.workers)}", root=root)


def _accounts(
    stage: str, hosts: Hosts, traffic: Traffic, before: dict[str, EngineReport]
) -> list[Struck]:
    return [
        account_of(f"{stage}: {engine.host}", traffic, engine, hosts.engine(name))
        for name, engine in before.items()
    ]
