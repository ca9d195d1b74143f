"""The disk of a host is full: engines go on, and start again once there is room."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.report import Goal, Report
from modelserver.values import EngineState
from tests.chaos.hosts import PATIENCE, Traffic, hosts_of, report
from tests.chaos.hosts import account as account_of
from tests.support.fleets import Hosts, model
from tests.support.processes import eventually

#: The size of the host's disk.
DISK = "8m"
#: How long the disk is full while the engine serves, in seconds.
FULL_SECONDS = 15.0


def disk_full() -> Report:
    """The host's disk, a tmpfs of 8 MiB, is full: requests go on, nothing is given up.

    First while the engine serves. Then the engine is killed, whose start needs to
    write: it must not become FATAL, and serve again within a minute once there is room.
    Needs root, to mount; says so where it may not.
    """
    with hosts_of(model("m")) as (hosts, _):
        disk = hosts.folder / "a"
        disk.mkdir()
        try:
            with _mounted(disk):
                return _fill(hosts, disk)
        except PermissionError as error:
            return Report((), (), (), (f"NOT RUN: {error}",))


@contextmanager
def _mounted(folder: Path) -> Iterator[None]:
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PermissionError(done.stderr.strip())
    try:
        yield
    finally:
        # Processes of the fleet, which end later, may still have files there.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill(hosts: Hosts, disk: Path) -> Report:
    hosts.worker("a")
    hosts.launch("a")
    before = hosts.ready("m-0", within=PATIENCE)
    rest = disk / "rest"
    with Traffic(hosts) as traffic:
        _take_all(disk, rest)
        time.sleep(FULL_SECONDS)
        left = shutil.disk_usage(disk).free
    after = hosts.engine("m-0")
    struck = [account_of("full while it serves", traffic, before, after)]
    os.kill(before.pid, 9)
    states = _watch(hosts, FULL_SECONDS)
    rest.unlink()
    freed = time.monotonic()
    with Traffic(hosts) as traffic:
        eventually(lambda: hosts.ready("m-0", before.incarnation + 1), PATIENCE)
        seconds = time.monotonic() - freed
    given_up = sum(state.startswith("FATAL") for state in states)
    outcomes = traffic.outcomes()
    lost = traffic.sent - outcomes["right"]
    return report(
        struck,
        Goal("bytes free", left, 0, at_most=True),
        Goal("starts given up", given_up, 0, at_most=True),
        Goal("ready once there is room", seconds, 60, "s", at_most=True),
        Goal("requests failed afterwards", lost, 0, at_most=True),
        notes=[f"killed on the full disk, it was {', '.join(states)}"],
    )


def _take_all(disk: Path, rest: Path) -> None:
    with rest.open("wb", buffering=0) as file, suppress(OSError):
        while shutil.disk_usage(disk).free:
            file.write(b"x" * 4096)


def _watch(hosts: Hosts, seconds: float) -> list[str]:
    """The states that the engine had meanwhile, each with its reason."""
    found: dict[str, None] = {}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        engine = hosts.engine("m-0")
        if engine:
            fatal = engine.state is EngineState.FATAL
            found[f"{engine.state}" + f": {engine.reason}" * fatal] = None
        time.sleep(0.1)
    return list(found)
