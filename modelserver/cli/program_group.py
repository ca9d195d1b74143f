"""Several programs of one host as one: started, kept alive, stopped together."""

import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, MappingProxyType

#: A program that died starts again after this time, in seconds; the time doubles with
#: each further death.
FIRST_RESTART_SECONDS = 1.0
#: A program that died starts again after this time at the latest, in seconds.
LONGEST_RESTART_SECONDS = 30.0
#: A program that ran for so long before it died had been well, in seconds.
WELL_SECONDS = 30.0
#: How often the programs are looked at, in seconds.
LOOK_SECONDS = 0.2
#: The signals that end the programs.
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
#: Has Linux send a process a signal when its parent has ended.
_PR_SET_PDEATHSIG = 1


def restart_seconds(deaths: int) -> float:
    """How long a program that died so often in a row is not started again.

    >>> restart_seconds(1), restart_seconds(3), restart_seconds(5000)
    (1.0, 4.0, 30.0)
    """
    # No float is as large as the power may be after a night of deaths.
    doublings = min(deaths - 1, 10)
    return min(LONGEST_RESTART_SECONDS, FIRST_RESTART_SECONDS * 2.0**doublings)


@dataclass(slots=True)
class Child:
    """One of the programs."""

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


class ProgramGroup:
    """The programs that one command runs. Needs the main thread, for its signals."""

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        folder: Path,
        environment: Mapping[str, str],
        say: Callable[[str], None],
        patience: Mapping[int, float] = MappingProxyType({}),
        hurried: Mapping[str, int] = MappingProxyType({}),
        sent_to_all: Collection[int] = (),
    ) -> None:
        """``patience`` says by signal how many seconds later the programs are hurried;
        ``hurried`` by name the signal for that, where it is not SIGQUIT. Whoever sends
        a signal of ``sent_to_all`` sends it to the programs too."""
        self.children = [Child(name, tuple(argv)) for name, argv in commands.items()]
        self.folder = folder
        self.environment = environment
        self.say = say
        self._patience = patience
        self._hurried = hurried
        self._sent_to_all = sent_to_all
        self._signals: list[int] = []
        self._told = False
        #: When the programs are to be hurried, by the monotonic clock.
        self._hurry_at = float("inf")
        #: The signals that it was told to end by, in order.
        self.told_by: list[int] = []

    def run(self) -> int:
        """Run until all have ended as told; the exit status."""
        for number in (*STOPPING, *self._patience):
            signal.signal(number, self._note)
        for child in self.children:
            self._start(child)
        while not all(child.has_ended for child in self.children):
            now = time.monotonic()
            while self._signals:
                self._obey(self._signals.pop(0), now)
            if now >= self._hurry_at:
                self._hurry("the time is over")
            for child in self.children:
                self._look_after(child, now)
            time.sleep(LOOK_SECONDS)
        return 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)

    def _start(self, child: Child) -> None:
        if sys.version_info < (3, 11):
            raise RuntimeError("what runs a host needs Python 3.11")
        child.process = subprocess.Popen(
            child.argv,
            stdin=subprocess.DEVNULL,
            cwd=self.folder,
            env=dict(self.environment),
            # A Ctrl-C is for this program alone, which passes it on once.
            process_group=0,
            preexec_fn=self._prepare_child,
        )
        child.due, child.started_at = 0.0, time.monotonic()
        self.say(f"{child.name} is started, pid {child.process.pid}")

    def _prepare_child(self) -> None:
        _end_with_parent()
        # What only this program understands would kill others whom it is sent to.
        signal.pthread_sigmask(signal.SIG_BLOCK, {*self._patience} - {*STOPPING})

    def _obey(self, number: int, now: float) -> None:
        """First a warm shutdown; from the second signal on, or in time, a cold one."""
        name, seconds = signal.Signals(number).name, self._patience.get(number)
        if seconds is not None:
            self._hurry_at = min(self._hurry_at, now + seconds)
        if not self._told:
            self._told = True
            self.say(f"{name}: all finish what they have, and end")
            if number not in self._sent_to_all:
                for child in self.children:
                    self._send(child, number if number in STOPPING else signal.SIGTERM)
        elif seconds is None:
            self._hurry(name)
        self.told_by.append(number)

    def _hurry(self, why: str) -> None:
        self._hurry_at = float("inf")
        self.say(f"{why}: all give back what they have, and end")
        for child in self.children:
            self._send(child, self._hurried.get(child.name, signal.SIGQUIT))

    def _send(self, child: Child, number: int) -> None:
        if child.process is not None and not child.due and not child.has_ended:
            with suppress(ProcessLookupError):
                child.process.send_signal(number)

    def _look_after(self, child: Child, now: float) -> None:
        if child.has_ended or child.process is None:
            return
        if child.due:
            if self._told:
                child.has_ended = True
            elif now >= child.due:
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
        wait = restart_seconds(child.deaths)
        child.due = now + wait
        self.say(f"{child.name} died (status {status}), starts again in {wait:g} s")


def _end_with_parent() -> None:
    """Have this process finish what it has, and end, should its parent be killed."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
