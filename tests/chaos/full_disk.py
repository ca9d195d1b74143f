"""A host whose disk is full: nothing is given up, people are told, it goes on after."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.report import Goal, Report
from modelserver.store.alerts import last_alerts, open_alerts
from modelserver.values import EngineState
from tests.engine.openai_api import answer_text
from tests.support.fleets import Hosts, model, open_hosts
from tests.support.processes import ValkeyProcess, eventually

#: Bytes of the host's disk.
DISK_BYTES = 16 * 2**20
#: Requests by which the bytes of logs are measured.
REQUESTS = 2_000
#: Seconds for which the disk is full: several starts.
FULL_SECONDS = 30.0
PATIENCE = 60.0


def full_disk() -> Report:
    """The engine is killed again and again on a host without a byte of room.

    The host's home folder is a file system of 16 MiB, which needs the right to mount.
    Before, 2,000 requests are answered and the logs of all programs are measured.
    """
    with tempfile.TemporaryDirectory(prefix="modelserver-chaos-") as name:
        folder = Path(name)
        (folder / "valkey").mkdir()
        (folder / "a").mkdir()
        valkey = ValkeyProcess(folder / "valkey").start()
        try:
            with (
                _small_disk(folder / "a"),
                open_hosts(folder, valkey.url, model("m")) as hosts,
            ):
                return _run(hosts)
        finally:
            valkey.stop()


@contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    size = f"size={DISK_BYTES}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def _run(hosts: Hosts) -> Report:
    hosts.launch("a")
    hosts.worker("a")
    hosts.ready("m-0")
    before = _log_bytes(hosts)
    results = [hosts.complete.delay(f"log {place}") for place in range(REQUESTS)]
    right = sum(
        result.get(timeout=PATIENCE) == answer_text(f"log {place}")
        for place, result in enumerate(results)
    )
    logged = (_log_bytes(hosts) - before) * 10_000 / REQUESTS

    ballast = hosts.folder / "a" / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 65_536)
    states, reasons, until = set(), set(), time.monotonic() + FULL_SECONDS
    while time.monotonic() < until:
        if engine := hosts.engine("m-0"):
            states.add(engine.state)
            reasons.add(engine.reason)
            if engine.pid and engine.serves:
                with suppress(ProcessLookupError):
                    os.kill(engine.pid, signal.SIGKILL)
        time.sleep(0.2)
    told = any(each.kind == "disk" for each in open_alerts(hosts.store))
    incarnation = getattr(hosts.engine("m-0"), "incarnation", 0)

    freed = time.monotonic()
    ballast.unlink()
    hosts.ready("m-0", incarnation, within=PATIENCE)
    answer = hosts.complete.delay("after").get(timeout=PATIENCE)
    seconds = time.monotonic() - freed
    eventually(lambda: not open_alerts(hosts.store), PATIENCE)
    events = [
        each.event for each in last_alerts(hosts.store, 50) if each.kind == "disk"
    ]
    goals = (
        Goal("right answers", right, REQUESTS),
        Goal("fatal engines", EngineState.FATAL in states, 0, at_most=True),
        Goal(
            "reasons that name the disk",
            any("full" in r or "room" in r for r in reasons),
            1,
        ),
        Goal("alert of the disk", told, 1),
        Goal("alerts that ended", events.count("ended"), 1),
        Goal("answer after", answer == answer_text("after"), 1),
        Goal("bytes of log for 10,000 requests", logged, 100_000, at_most=True),
    )
    rows = (
        (", ".join(sorted(states)), logged, seconds, " | ".join(sorted(reasons))[:120]),
    )
    columns = ("states", "log bytes/10,000", "seconds to an answer", "reasons")
    return Report(columns, rows, goals)


def _log_bytes(hosts: Hosts) -> int:
    """What all programs of the fleet have logged."""
    return sum(path.stat().st_size for path in hosts.folder.rglob("*.log*"))
