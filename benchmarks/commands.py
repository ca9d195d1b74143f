"""How long commands take that only read: wall and processor time of each."""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import Elsewhere
from benchmarks.report import Goal, Report
from tests.support.fleet_records import Records
from tests.support.processes import ROOT, ValkeyProcess

#: The fleet of the measurement: engines and models.
ENGINES, MODELS = 8, 2
#: Each command is run so often, after once for what Python and the disk keep.
ROUNDS = 10
#: A command answers within so many seconds on a machine that has nothing else to do.
MOST_SECONDS = 0.5
#: Those that are measured.
COMMANDS = (
    ("--help",),
    ("status",),
    ("status", "--json"),
    ("models",),
    ("why", "model-0"),
    ("why", "model-0-0"),
    ("why", "host-0"),
    ("alerts",),
    ("dead",),
    ("incidents",),
    ("keys", "list"),
    ("usage",),
    ("batch", "list"),
    ("batch", "--help"),
    ("apply", "--dry-run"),
)


def commands() -> Report:
    """Wall and processor time of commands that only read, each in its own process.

    8 engines of 2 models: records in a real Valkey, nothing else runs.
    """
    elsewhere = Elsewhere()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "valkey").mkdir()
        server = ValkeyProcess(folder / "valkey").start()
        try:
            names = [f"model-{number}" for number in range(MODELS)]
            records = Records.open(folder, server.url, names)
            records.write(ENGINES, 2)
            records.store.client.close()
            rows = [_measure(folder, *command) for command in COMMANDS]
        finally:
            server.stop()
    slowest = max(row[1] for row in rows)
    busiest = max(row[4] for row in rows)
    return Report(
        ("command", "median s", "least s", "most s", "median CPU s"),
        tuple(rows),
        (
            Goal("slowest command", slowest, MOST_SECONDS, "s", True),
            Goal("busiest command", busiest, MOST_SECONDS, "CPU s", True),
        ),
        (
            "the figure to trust while others work is the CPU's",
            f"others used {elsewhere.cores():.1f} cores meanwhile",
        ),
    )


def _measure(folder: Path, *command: str) -> tuple[str, float, float, float, float]:
    environment = {
        **os.environ,
        "MODELSERVER_HOME": str(folder),
        "MODELSERVER_FLEET": str(folder / "fleet.toml"),
        # Without kept bytecode it would be the compiler's time.
        "PYTHONDONTWRITEBYTECODE": "",
    }
    argv = [sys.executable, "-m", "modelserver.cli", *command]
    walls, processors = [], []
    for _ in range(ROUNDS + 1):
        began, before = time.perf_counter(), _cpu_of_children()
        done = subprocess.run(argv, env=environment, cwd=ROOT, capture_output=True)
        walls.append(time.perf_counter() - began)
        processors.append(_cpu_of_children() - before)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode()}")
    seconds = sorted(walls[1:])
    return (
        " ".join(command),
        statistics.median(seconds),
        seconds[0],
        seconds[-1],
        statistics.median(processors[1:]),
    )


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
