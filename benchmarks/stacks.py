"""The stacks of the throughput benchmark: how each is installed, started and asked."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from uv import find_uv_bin

from modelserver.settings import Settings

PEERS = Path(__file__).resolve().parent / "peers"
PACKAGE = "benchmarks.peers"


@dataclass(frozen=True, slots=True)
class Stack:
    """One way to do the work. ``{n}`` in the worker's arguments is what is in flight.

    ``acks_after`` says that it acknowledges after the work, ``wide`` that more in
    flight may make it faster; ``queue`` names the sorted set from which a task goes
    when it is done, where results cannot be counted.
    """

    name: str
    producer: str
    worker: tuple[str, ...]
    acks_after: bool = True
    kind: str = ""
    queue: str = ""
    requirements: str = "requirements.txt"
    wide: bool = True


def _celery(pool: str, number: str) -> Stack:
    app = ("celery", "-A", f"{PACKAGE}.celery_peer", "worker", "-l", "WARNING")
    options = ("-P", pool, "-c", number, "--without-gossip", "--without-mingle")
    name, module = f"celery {pool}", f"{PACKAGE}.celery_peer"
    return Stack(name, module, (*app, *options), wide=pool == "threads")


def _taskiq(kind: str, acks_after: bool) -> Stack:
    options = ("--workers", "1", "--max-async-tasks", "{n}", "--log-level", "WARNING")
    acks = ("--ack-type", "when_saved")
    module = f"{PACKAGE}.taskiq_peer"
    worker = ("taskiq", "worker", *options, *acks, f"{module}:broker")
    return Stack(f"taskiq {kind}", module, worker, acks_after, kind)


OURS = Stack("modelserver", "benchmarks.own_producer", ())
STACKS = (
    OURS,
    _celery("threads", "{n}"),
    _celery("gevent", "{n}"),
    _celery("prefork", "8"),
    _taskiq("list", acks_after=False),
    _taskiq("stream", acks_after=True),
    Stack(
        "arq",
        f"{PACKAGE}.arq_peer",
        ("arq", f"{PACKAGE}.arq_peer.WorkerSettings"),
        queue="arq:queue",
        requirements="requirements-arq.txt",
    ),
    Stack(
        "dramatiq",
        f"{PACKAGE}.dramatiq_peer",
        ("dramatiq", f"{PACKAGE}.dramatiq_peer", "-p", "1", "-t", "{n}"),
    ),
)


def python_of(stack: Stack, settings: Settings) -> Path:
    """The interpreter of a stack's environment, which is made if it is not there."""
    if stack is OURS:
        return Path(sys.executable)
    return python_of_requirements(stack.requirements, settings)


def python_of_requirements(name: str, settings: Settings) -> Path:
    """The interpreter of an environment with these packages, which may have to be made.

    ``name`` is a file among the peers.
    """
    return python_of_packages((PEERS / name).read_text().splitlines(), settings)


def python_of_packages(packages: Sequence[str], settings: Settings) -> Path:
    """The interpreter of an environment with these, which may have to be made."""
    content = "".join(f"{package}\n" for package in packages) + sys.version
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    folder = settings.home / "bench" / f"peers-{digest}"
    python = folder / "bin" / "python"
    if (folder / "ready").exists():
        return python
    asked = [line for line in packages if line and not line.startswith("#")]
    print(f"installing {' '.join(asked)} into {folder}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    uv, inside = os.fsdecode(find_uv_bin()), ["--python", str(python)]
    make = [uv, "venv", "-q", "--python", sys.executable, str(folder)]
    subprocess.run(make, check=True)
    install = [uv, "pip", "install", "-q", *inside, *asked]
    subprocess.run(install, check=True)
    (folder / "ready").touch()
    return python
