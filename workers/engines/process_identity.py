"""Which process a worker is, so that others on its host see at once when it is gone."""

import os

import psutil

from modelserver.births import Birth, find_birth, has_ended


def find_own_process() -> str:
    """The machine's start, the space of process numbers, number and start of this one.

    "" where the system does not tell.
    """
    birth, space = find_birth(os.getpid()), _space()
    return f"{space} {os.getpid()} {birth.ticks}" if birth and space else ""


def is_gone(process: str) -> bool:
    """Whether it is sure that a process is gone: it is this machine's, and dead."""
    space, _, rest = process.partition(" ")
    number, _, started = rest.partition(" ")
    if not space or space != _space():
        return False  # Of another container: its number says nothing here.
    pid = int(number)
    birth = find_birth(pid)
    if birth is None:
        return not psutil.pid_exists(pid)
    same = birth.is_that_of(Birth(birth.boot, int(started)))
    return not same or _is_dead(pid)


def _space() -> str:
    """The machine's start and the space of process numbers, "" where unknown."""
    birth = find_birth(os.getpid())
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
    return f"{birth.boot}/{space}" if birth and birth.boot else ""


def _is_dead(pid: int) -> bool:
    try:
        return has_ended(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False
