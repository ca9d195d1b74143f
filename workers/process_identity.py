"""Which process a worker is, so that others on its host see at once when it is gone."""

import os
from pathlib import Path

#: Where Linux says which start of the machine this is.
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
#: The states in which a process has given everything back.
DEAD_STATES = frozenset("ZXx")


def find_own_process() -> str:
    """The machine's start, the space of process numbers, number and start of this one.

    "" where the system does not tell.
    """
    try:
        return f"{_numbers()} {os.getpid()} {_stat(os.getpid())[1]}"
    except OSError:
        return ""


def is_gone(process: str) -> bool:
    """Whether it is sure that a process is gone: it is this machine's, and dead."""
    space, _, rest = process.partition(" ")
    number, _, started = rest.partition(" ")
    try:
        if not process or space != _numbers():
            return False  # Of another container: its number says nothing here.
        state, started_now = _stat(int(number))
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
    return state in DEAD_STATES or started_now != started


def _numbers() -> str:
    """The machine's start and the space of process numbers of this process."""
    try:
        return f"{BOOT_ID.read_text().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError as error:
        raise PermissionError(str(error)) from error


def _stat(number: int) -> tuple[str, str]:
    """State and start of a process. Raises FileNotFoundError where there is none."""
    try:
        text = Path(f"/proc/{number}/stat").read_text()
    except ProcessLookupError as error:
        raise FileNotFoundError(str(error)) from error
    # The name before may hold anything.
    fields = text.rpartition(")")[2].split()
    return fields[0], fields[19]
