"""Submitted runs in tests: the commands about them, and processes that hold them."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from modelserver.runs.files.batch_run import BatchOptions, BatchRun
from modelserver.runs.files.journal import BatchPaths
from modelserver.runs.files.source import Source
from modelserver.runs.hosting.choosing import find_obstacle
from modelserver.runs.hosting.submitting import submit_run
from modelserver.store import Store
from modelserver.store.runs.hosted import HostedRun, read_holders, read_hosted
from tests.support.processes import ROOT, end, eventually
from tests.support.workers import HOST, FleetSite


def batch(
    fleet: FleetSite, *arguments: object, status: int = 0, host: str = HOST
) -> "subprocess.CompletedProcess[str]":
    """One command of ``modelserver batch``; the status must be this."""
    done = subprocess.run(
        [sys.executable, "-m", "modelserver.cli", "batch", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **fleet.environment, "MODELSERVER_HOST": host},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == status, f"{done.returncode}: {done.stdout}{done.stderr}"
    return done


def submit(fleet: FleetSite, source: Path, output: Path, weight: int = 1) -> str:
    """Submit a file, as the command does; the run's id."""
    paths = BatchPaths(output)
    job = BatchRun(fleet.app, Source(source), paths, BatchOptions())
    try:
        job.prepare()
        return submit_run(fleet.store, job, (HOST, "tester"), weight).id
    finally:
        job.close()


def kept(store: Store, run: str) -> HostedRun:
    """What the store has of a run."""
    (found,) = read_hosted(store, [run], whole=True)
    return found


def state(store: Store, run: str) -> str:
    """How a run stands."""
    return kept(store, run).state(store.now())


def obstacle(store: Store, run: str) -> str:
    """Why a run is not gone on with."""
    return find_obstacle(kept(store, run), read_holders(store), store.now())


class HolderProcess:
    """``modelserver batches`` as a real process, logging to a file."""

    def __init__(self, log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "modelserver.cli", "batches"],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )

    def wait_until_ready(self) -> None:
        """Until it looks for runs."""
        eventually(lambda: "is ready" in self.said())

    def has(self, store: Store, run: str) -> bool:
        """Whether it carries out this run."""
        found = kept(store, run)
        name = found.holder.rpartition("-")[2]
        return found.is_held(store.now()) and name == str(self.process.pid)

    def said(self) -> str:
        """All that it has logged."""
        return self.log.read_text()


@contextmanager
def holder(fleet: FleetSite, name: str, host: str = HOST) -> Iterator[HolderProcess]:
    """Such a process, ended with the test."""
    environment = fleet.environment | {"MODELSERVER_HOST": host}
    process = HolderProcess(fleet.folder / f"{name}.log", environment)
    try:
        yield process
    finally:
        end(process.process)
