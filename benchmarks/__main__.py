"""``python -m benchmarks [NAME]``: all benchmarks, or the one that is named."""

import sys

from benchmarks.bulk import bulk
from benchmarks.commands import commands
from benchmarks.control import control
from benchmarks.embeddings import embeddings
from benchmarks.engine_bound import engine_bound
from benchmarks.events import events
from benchmarks.flower import flower
from benchmarks.gateway import gateway
from benchmarks.install import install_size
from benchmarks.page import page
from benchmarks.placement import placement
from benchmarks.profile import profile
from benchmarks.queue_depth import queue_depth
from benchmarks.recording import recording
from benchmarks.report import main
from benchmarks.rollouts import rollouts
from benchmarks.run_batch import run_batch_beside
from benchmarks.run_million import run_million
from benchmarks.soak import soak
from benchmarks.submit import submit
from benchmarks.throughput import throughput
from benchmarks.two_workers import two_workers

CASES = {
    "engine-bound": engine_bound,
    "throughput": throughput,
    "bulk": bulk,
    "rollouts": rollouts,
    "run-million": run_million,
    "run-batch": run_batch_beside,
    "two-workers": two_workers,
    "embeddings": embeddings,
    "queue-depth": queue_depth,
    "submit": submit,
    "events": events,
    "profile": profile,
    "recording": recording,
    "page": page,
    "flower": flower,
    "install": install_size,
    "commands": commands,
    "placement": placement,
    "control": control,
    "gateway": gateway,
    "soak": soak,
}

if __name__ == "__main__":
    sys.exit(main("bench", CASES, sys.argv[1:]))
