"""The disk of a host is full: engines go on, and start again once there is room."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.report import Goal, Report
from modelserver.store.fleet.alerts import last_alerts, open_alerts
from modelserver.values import EngineState
from tests.chaos.hosts import PATIENCE, Traffic, hosts_of, report
from tests.chaos.hosts import account as account_of
from tests.engine.openai_api import answer_text
from tests.support.fleets import Hosts, model
from tests.support.processes import eventually

#: The size of the host's disk.
DISK = "8m"
#: How long the disk is full while the engine serves, in seconds.
FULL_SECONDS = 15.0
#: Requests by which the bytes of logs are measured.
REQUESTS = 2_000
#: Most bytes that all programs log for 10,000 requests.
MOST_LOGGED = 100_000


def disk_full() -> Report:
    """The host's disk, a tmpfs of 8 MiB, is full: requests go on, nothing is given up.

    First while the engine serves. Then the engine is killed, whose start needs to
    write: it must say so, not become FATAL, and serve again within a minute once there
    is room. Before, the bytes are measured that all programs log.
    """
    if os.geteuid():
        return Report((), (), (), ("NOT RUN: it needs root, to mount a file system",))
    with hosts_of(model("m")) as (hosts, _):
        disk = hosts.folder / "a"
        disk.mkdir()
        with _mounted(disk):
            return _fill(hosts, disk)


@contextmanager
def _mounted(folder: Path) -> Iterator[None]:
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield
    finally:
        # Processes of the fleet, which end later, may still have files there.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill(hosts: Hosts, disk: Path) -> Report:
    hosts.worker("a")
    hosts.launch("a")
    before = hosts.ready("m-0", within=PATIENCE)
    logged = _measure_logs(hosts)
    rest = disk / "rest"
    with Traffic(hosts) as traffic:
        _take_all(disk, rest)
        time.sleep(FULL_SECONDS)
        left = shutil.disk_usage(disk).free
    after = hosts.engine("m-0")
    struck = [account_of("full while it serves", traffic, before, after)]
    os.kill(before.pid, 9)
    said = _watch(hosts, FULL_SECONDS)
    told = any(each.kind == "disk" for each in open_alerts(hosts.store))
    rest.unlink()
    freed = time.monotonic()
    with Traffic(hosts) as traffic:
        eventually(lambda: hosts.ready("m-0", before.incarnation + 1), PATIENCE)
        seconds = time.monotonic() - freed
    given_up = sum(state is EngineState.FATAL for state, _ in said)
    named = any("full" in reason or "room" in reason for _, reason in said)
    outcomes = traffic.outcomes()
    lost = traffic.sent - outcomes["right"]
    eventually(lambda: not open_alerts(hosts.store), PATIENCE)
    alerts = [each for each in last_alerts(hosts.store, 50) if each.kind == "disk"]
    ended = sum(each.event == "ended" for each in alerts)
    return report(
        struck,
        Goal("bytes free", left, 0, at_most=True),
        Goal("starts given up", given_up, 0, at_most=True),
        Goal("ready once there is room", seconds, 60, "s", at_most=True),
        Goal("requests failed afterwards", lost, 0, at_most=True),
        Goal("reasons that name the disk", int(named), 1),
        Goal("alerts of the disk", int(told), 1),
        Goal("alerts that ended", ended, 1),
        Goal("bytes of log for 10,000 requests", logged, MOST_LOGGED, at_most=True),
        notes=[
            f"killed on the full disk, it was {state}: {reason}"
            for state, reason in said
            if reason
        ],
    )


def _measure_logs(hosts: Hosts) -> float:
    """Bytes that all programs of the fleet log for 10,000 requests."""
    before = _log_bytes(hosts)
    prompts = [f"log {place}" for place in range(REQUESTS)]
    results = [hosts.complete.delay(prompt) for prompt in prompts]
    for prompt, result in zip(prompts, results, strict=True):
        assert result.get(timeout=PATIENCE) == answer_text(prompt)
    return (_log_bytes(hosts) - before) * 10_000 / REQUESTS


def _log_bytes(hosts: Hosts) -> int:
    return sum(path.stat().st_size for path in hosts.folder.rglob("*.log*"))


def _take_all(disk: Path, rest: Path) -> None:
    with rest.open("wb", buffering=0) as file, suppress(OSError):
        while shutil.disk_usage(disk).free:
            file.write(b"x" * 4096)


def _watch(hosts: Hosts, seconds: float) -> list[tuple[EngineState, str]]:
    """The states that the engine had meanwhile, each with its reason."""
    found: dict[tuple[EngineState, str], None] = {}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if engine := hosts.engine("m-0"):
            found[engine.state, engine.reason] = None
        time.sleep(0.1)
    return list(found)
