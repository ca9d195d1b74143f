"""Faults around the server: restarted, cut off, and clocks that disagree."""

import os
import time
from pathlib import Path

from benchmarks.report import Report
from benchmarks.rig import Rig
from tests.chaos.load import COLUMNS, Account, Load
from tests.chaos.proxy import Proxy
from tests.chaos.workers import report
from tests.support.processes import eventually

#: Restarts for each way of writing the append-only file.
RESTARTS = 2
#: How long the server is away, in seconds.
AWAY_SECONDS = 1.0
#: How long the server is cut off, in seconds.
CUT_SECONDS = 30.0
#: Where distributions put libfaketime.
FAKETIME = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib*/faketime/libfaketime.*")
#: How wrong a clock is.
SHIFTS = ("+1h", "-1h")


def redis_restarted() -> Report:
    """SIGKILL of the server in mid-load, and its restart: nothing is lost.

    With an append-only file, written through at every command and once a second. Two
    workers; the server is away for a second. Publications that the watcher missed
    meanwhile are not timed.
    """
    accounts = [
        _restarted(fsync, run)
        for fsync in ("always", "everysec")
        for run in range(RESTARTS)
    ]
    return report(accounts, 20.0)


def _restarted(fsync: str, run: int) -> Account:
    options = {"appendonly": "yes", "appendfsync": fsync}
    with Rig("--latency", "0.5", limit=64, server_options=options) as rig:
        rig.worker()
        rig.worker()
        load = Load(rig)
        load.send(600)
        load.wait(150)
        # Engines answer in waves: half a wave later in the second run.
        time.sleep(0.25 * run)
        load.strike(load.unanswered())
        rig.server.stop()
        time.sleep(AWAY_SECONDS)
        rig.server.start()
        load.settle(within=60)
        return load.account(f"{fsync} {run + 1}")


def redis_cut_off() -> Report:
    """The link between one of two workers and the server is dead for 30 s, not closed.

    Beyond its lease, so that the other worker answers what it held. Afterwards it has
    its late answers refused, and answers new requests alone.
    """
    with Rig("--latency", "1.0", limit=64) as rig, Proxy(rig.server.port) as proxy:
        first, second = rig.worker(rig.settings_at(proxy.url)), rig.worker()
        load = Load(rig)
        load.send(500)
        eventually(lambda: len(load.held_by(rig.name_of(first))) >= 32)
        time.sleep(0.3)
        load.strike(load.held_by(rig.name_of(first)))
        proxy.cut()
        time.sleep(CUT_SECONDS)
        proxy.mend()
        load.settle(within=60)
        eventually(lambda: rig.name_of(first))
        second.end()
        load.send(50)
        load.settle(within=60)
        account = load.account(f"cut off {CUT_SECONDS:g} s")
        first.end()
    return report([account], 15.0)


def clock_shifted() -> Report:
    """Workers whose clock is an hour off answer as others do, and wake what is due.

    By libfaketime, which shifts the worker's wall clock only; says so where it is not
    installed. Each run has one worker, plain requests and some with a countdown.
    """
    library = find_faketime()
    if library is None:
        note = "NOT RUN: libfaketime is not installed (apt-get install libfaketime)"
        return Report(COLUMNS, (), (), (note,))
    return report([_shifted(library, shift) for shift in SHIFTS], 15.0)


def find_faketime() -> Path | None:
    """Where libfaketime is; LIBFAKETIME in the environment names it."""
    named = os.environ.get("LIBFAKETIME")
    found = [path for place in FAKETIME for path in Path("/").glob(place[1:])]
    return Path(named) if named else next(iter(sorted(found)), None)


def _shifted(library: Path, shift: str) -> Account:
    faked = {
        "LD_PRELOAD": str(library),
        "FAKETIME": shift,
        "DONT_FAKE_MONOTONIC": "1",
    }
    with Rig("--latency", "0.3", limit=64) as rig:
        rig.worker(None, True, **faked)
        load = Load(rig)
        load.send(200)
        load.strike(load.send(20, countdown=3))
        load.settle(within=30)
        return load.account(f"clock {shift}")
