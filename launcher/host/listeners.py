"""Whose processes listen on a port: an engine's own, or a stranger's."""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from launcher.host.process import Identity, survivors
from modelserver.births import thread_folders

#: The tables of this host's TCP sockets.
TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
#: 127.0.0.1 and any address, as these tables write them in IPv4 and in IPv6.
LOOPBACK = ("0100007F", "0000000000000000FFFF00000100007F")
ANY = ("0" * 8, "0" * 32)
#: How these tables name the state of a socket that listens.
LISTENING = "0A"
#: Seconds for which one reading of the tables serves all engines of a host at least.
READING_SECONDS = 0.2
#: The same as a multiple of what the reading took: a host may have many connections.
READING_PAUSES = 10


class Listeners:
    """The sockets that listen on this host, read once for all who ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read_again_at = float("-inf")
        self._found: dict[int, frozenset[str]] = {}

    def on(self, port: int) -> frozenset[str]:
        """Those that get what is sent to this port of 127.0.0.1. May take 0.1 s."""
        with self._lock:
            began = time.monotonic()
            if began >= self._read_again_at:
                self._found = _read_listening()
                ended = time.monotonic()
                self._read_again_at = ended + reading_pause(ended - began)
            return self._found.get(port, frozenset())


def reading_pause(seconds: float) -> float:
    """Seconds from the end of a reading that took so long to the next at least.

    >>> reading_pause(0.001), reading_pause(0.1)
    (0.2, 1.0)
    """
    return max(READING_SECONDS, READING_PAUSES * seconds)


class PortWatch:
    """Whether an engine that serves still has its port for itself.

    With SO_REUSEPORT another process of its user can share it at any time, and when the
    engine no longer listens anybody can take it.
    """

    def __init__(
        self, listeners: Listeners, port: int, engine: Identity, may_be_unseen: bool
    ) -> None:
        self._listeners = listeners
        self._port = port
        self._engine = engine
        self._may_be_unseen = may_be_unseen
        #: Sockets that were found to be the engine's.
        self._known: frozenset[str] = frozenset()

    def find_stranger(self) -> str:
        """Who else listens there now, "" for nobody. May take 0.1 s."""
        sockets = self._listeners.on(self._port)
        if sockets <= self._known:
            return ""
        if who := find_stranger(self._port, self._engine, self._may_be_unseen):
            return who
        self._known = sockets
        # Where its own can be seen, another one that cannot is none of them.
        own = {process.pid for process in survivors(self._engine)}
        self._may_be_unseen = self._may_be_unseen and not sockets <= _sockets_of(own)
        return ""


def find_stranger(port: int, engine: Identity, may_be_unseen: bool) -> str:
    """Who listens on an engine's port without being of it, "" where nobody does.

    ``may_be_unseen`` says that the engine's own processes may be where this user cannot
    look: in a container.
    """
    sockets = _listening(port)
    if not sockets:
        return ""
    own = {process.pid for process in survivors(engine)}
    strange = sockets - _sockets_of(own)
    if not strange:
        return ""
    for pid in psutil.pids():
        if pid not in own and strange & _sockets_of([pid]):
            return f"pid {pid} ({command_line(pid)})"
    return "" if may_be_unseen else "a process of another user"


def command_line(pid: int) -> str:
    """What a process runs, as far as this user may see."""
    try:
        return " ".join(psutil.Process(pid).cmdline())[:120] or "?"
    except psutil.Error:
        return "?"


def _listening(port: int) -> set[str]:
    """The sockets that get what is sent to this port of 127.0.0.1.

    As file descriptors name them. Whoever listens on any address gets what nobody gets
    who listens on this one; those on others get nothing.
    """
    return set(_read_listening().get(port, ()))


def _read_listening() -> dict[int, frozenset[str]]:
    """The same for every port."""
    exact, wide = defaultdict[int, set[str]](set), defaultdict[int, set[str]](set)
    for table in TABLES:
        for fields in _rows(table):
            address, _, port = fields[1].partition(":")
            if fields[3] == LISTENING and address in (*LOOPBACK, *ANY):
                found = exact if address in LOOPBACK else wide
                found[int(port, 16)].add(f"socket:[{fields[9]}]")
    return {port: frozenset(each) for port, each in (wide | exact).items()}


def _rows(table: Path) -> Iterator[list[str]]:
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return
    # There may be tens of thousands, and few of them listen.
    yield from (line.split() for line in lines if f" {LISTENING} " in line)


def _sockets_of(pids: Iterable[int]) -> set[str]:
    return {socket for pid in pids for socket in _open_sockets(pid)}


def _open_sockets(pid: int) -> set[str]:
    """Those of one process; its first thread may have ended before the others."""
    folders = (Path(f"/proc/{pid}"), *thread_folders(pid))
    for folder in folders:
        try:
            names = os.listdir(folder / "fd")
        except OSError:
            continue
        if not names:
            continue
        found = set()
        for name in names:
            with suppress(OSError):
                target = os.readlink(folder / "fd" / name)
                found |= {target} if target.startswith("socket:") else set()
        return found
    return set()
