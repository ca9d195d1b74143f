"""Several workers of one host as one program: started, kept alive, stopped together."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from types import FrameType

from modelserver.errors import ConfigurationError
from modelserver.fleet.file import Fleet

#: A worker that died starts again after this time, in seconds; the time doubles with
#: each further death.
FIRST_RESTART_SECONDS = 1.0
#: A worker that died starts again after this time at the latest, in seconds.
LONGEST_RESTART_SECONDS = 30.0
#: A worker that ran for so long before it died had been well, in seconds.
WELL_SECONDS = 30.0
#: How often the workers are looked at, in seconds.
LOOK_SECONDS = 0.2
#: With "auto" there is one process for so many requests that engines take at once:
#: answered in 100 ms, they keep one core busy.
PLACES_A_PROCESS = 128
#: With "auto" workers get one core of so many; engines and others need the rest.
CORES_A_PROCESS = 4
#: The signals that are passed on.
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
#: Options of Celery that name a worker.
NAMING = ("-n", "--hostname")
#: Has Linux send a process a signal when its parent has ended.
_PR_SET_PDEATHSIG = 1


def find_processes(asked: str, fleet: Fleet, cores: int) -> int:
    """How many workers a host is to run. Raises ConfigurationError.

    >>> find_processes("3", Fleet(), cores=2), find_processes("auto", Fleet(), cores=16)
    (3, 1)
    """
    if asked != "auto":
        if not asked.isdigit() or asked == "0":
            raise ConfigurationError(
                f'processes is "{asked}"; say how many workers this host is to run, '
                'from 1, or "auto"'
            )
        return int(asked)
    places = sum(spec.max_engines * spec.max_running for spec in fleet.specs())
    of_host = ceil(places / max(1, len(fleet.hosts)))
    useful = ceil(of_host / PLACES_A_PROCESS)
    return max(1, min(useful, cores // CORES_A_PROCESS))


def refuse_names(args: Sequence[str]) -> None:
    """Raises ConfigurationError where all workers would get one name."""
    named = next((arg for arg in args if arg.startswith(NAMING)), None)
    if named is not None:
        raise ConfigurationError(
            f"{named} would give all workers one name; leave it out: they are called "
            "worker@HOST-0, worker@HOST-1, ..."
        )


@dataclass(slots=True)
class WorkerChild:
    """One of the workers."""

    name: str
    argv: tuple[str, ...]
    process: "subprocess.Popen[bytes] | None" = None
    #: When it was started last, by the monotonic clock.
    started_at: float = 0.0
    #: How often it has died in a row.
    deaths: int = 0
    #: When it is to be started again, by the monotonic clock; 0 while it runs.
    due: float = 0.0
    #: Whether it has ended as it was told to.
    has_ended: bool = False


class WorkerGroup:
    """The workers of one program. Needs the main thread, for its signals."""

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        folder: Path,
        environment: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:
        self.children = [
            WorkerChild(name, tuple(argv)) for name, argv in commands.items()
        ]
        self.folder = folder
        self.environment = environment
        self.say = say
        self._signals: list[int] = []
        self._told = 0

    def run(self) -> int:
        """Run until all have ended as told; the exit status."""
        for number in STOPPING:
            signal.signal(number, self._note)
        for child in self.children:
            self._start(child)
        while not all(child.has_ended for child in self.children):
            while self._signals:
                self._pass_on(self._signals.pop(0))
            for child in self.children:
                self._look_after(child, time.monotonic())
            time.sleep(LOOK_SECONDS)
        return 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)

    def _start(self, child: WorkerChild) -> None:
        child.process = subprocess.Popen(
            child.argv,
            stdin=subprocess.DEVNULL,
            cwd=self.folder,
            env=dict(self.environment),
            # A Ctrl-C is for this program alone, which passes it on once.
            process_group=0,
            preexec_fn=_end_with_parent,
        )
        child.due, child.started_at = 0.0, time.monotonic()
        self.say(f"{child.name} is started, pid {child.process.pid}")

    def _pass_on(self, number: int) -> None:
        """First a warm shutdown; from the second signal on a cold one."""
        self._told += 1
        passed = number if self._told == 1 else signal.SIGQUIT
        how = "finish what they have" if self._told == 1 else "give back what they have"
        self.say(f"{signal.Signals(number).name}: all workers {how}, and end")
        for child in self.children:
            if child.process is None or child.due:
                child.has_ended = True
            elif not child.has_ended:
                with suppress(ProcessLookupError):
                    child.process.send_signal(passed)

    def _look_after(self, child: WorkerChild, now: float) -> None:
        if child.has_ended or child.process is None:
            return
        if child.due:
            if now >= child.due:
                self._start(child)
            return
        status = child.process.poll()
        if status is None:
            return
        if self._told or status == 0:
            child.has_ended = True
            self.say(f"{child.name} has ended")
            return
        was_well = now - child.started_at >= WELL_SECONDS
        child.deaths = 1 if was_well else child.deaths + 1
        wait = FIRST_RESTART_SECONDS * 2 ** (child.deaths - 1)
        wait = min(LONGEST_RESTART_SECONDS, wait)
        child.due = now + wait
        self.say(f"{child.name} died (status {status}), starts again in {wait:g} s")


def _end_with_parent() -> None:
    """Have this process finish what it has, and end, should its parent be killed."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def count_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))
