"""When a process began, by the kernel's own count, and whether it has ended.

No step of the clock moves when it began.

In a time namespace of its own, as a restored container has, the kernel tells each time
since the boot with an offset. It is taken out here, so that all on a host agree.
"""

import functools
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

#: Clock ticks a second.
TICKS = os.sysconf("SC_CLK_TCK")
#: Seconds between two looks whether a process has ended.
END_LOOK_SECONDS = 0.05
#: How far this process's time namespace is from the host's time.
TIME_OFFSETS = Path("/proc/self/timens_offsets")
#: The place of the start among the fields of /proc/PID/stat that follow the name.
_START_FIELD = 19


@dataclass(frozen=True, slots=True)
class Birth:
    """Tells a process from every other one that has its number, now or later."""

    #: The boot of its host, "" where that is unknown.
    boot: str = ""
    #: Clock ticks from that boot to its start, 0 where they are unknown.
    ticks: int = 0

    @property
    def known(self) -> bool:
        """Whether it was read; versions before wrote an epoch time instead."""
        return self.ticks > 0

    @property
    def in_this_boot(self) -> bool:
        """Whether it was since the host last booted."""
        return self.boot == _boot()

    def is_that_of(self, other: "Birth | None") -> bool:
        """Whether both are of one process, to a tick where an offset rounds them."""
        if other is None or self.boot != other.boot:
            return False
        rounded = not (_offset_seconds() * TICKS).is_integer()
        return abs(self.ticks - other.ticks) <= rounded

    @property
    def age_seconds(self) -> float:
        """Seconds since then, of a birth in this boot."""
        return max(0.0, _uptime() - self.ticks / TICKS)


def find_birth(pid: int) -> Birth | None:
    """When the process with this number began, None where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The name stands in brackets and may hold some itself.
    ticks = int(text.rpartition(")")[2].split()[_START_FIELD])
    return Birth(_boot(), ticks - int(_offset_seconds() * TICKS))


def has_ended(process: psutil.Process) -> bool:
    """Whether a process is gone and has given back its memory, sockets and devices.

    One that is killed is a zombie as soon as its first thread has ended, while others
    may still have all of that: on a busy machine for a while, in a driver that hangs
    for good.
    """
    try:
        dead = process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        return dead and process.num_threads() <= 1
    except psutil.NoSuchProcess:
        return True


def await_end(process: psutil.Process, seconds: float = math.inf) -> bool:
    """Wait until a process has ended; whether it has within so many seconds.

    One that nobody waits for, as in a container without an init, has ended although its
    number is there for good.
    """
    until = time.monotonic() + seconds
    while not (ended := has_ended(process)) and time.monotonic() < until:
        time.sleep(END_LOOK_SECONDS)
    return ended


def thread_folders(pid: int) -> list[Path]:
    """What the kernel tells of each thread of a process, the first one last.

    Once that has ended, only the others tell what the process still has.
    """
    try:
        return sorted(Path(f"/proc/{pid}/task").iterdir(), reverse=True)
    except OSError:
        return []


def present_moment() -> Birth:
    """The birth of a process that would begin now."""
    return Birth(_boot(), max(1, int(_uptime() * TICKS)))


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _uptime() -> float:
    return float(Path("/proc/uptime").read_text().split()[0]) - _offset_seconds()


@functools.cache
def _offset_seconds() -> float:
    """What the kernel adds here to times since the boot; it stays for a process."""
    try:
        lines = [line.split() for line in TIME_OFFSETS.read_text().splitlines()]
    except OSError:
        return 0.0
    found = (int(s) + int(n) / 1e9 for name, s, n in lines if name == "boottime")
    return next(found, 0.0)
