"""Whose processes listen on a port: an engine's own, or a stranger's."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

from launcher.host.process import Identity, survivors

#: The tables of this host's TCP sockets.
TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
#: 127.0.0.1 and any address, as these tables write them in IPv4 and in IPv6.
LOOPBACK = ("0100007F", "0000000000000000FFFF00000100007F")
ANY = ("0" * 8, "0" * 32)
#: How these tables name the state of a socket that listens.
LISTENING = "0A"


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
    found: dict[tuple[str, ...], set[str]] = {LOOPBACK: set(), ANY: set()}
    for table in TABLES:
        for fields in _rows(table):
            address, _, there = fields[1].partition(":")
            for addresses, sockets in found.items():
                here = address in addresses and int(there, 16) == port
                if here and fields[3] == LISTENING:
                    sockets.add(f"socket:[{fields[9]}]")
    return found[LOOPBACK] or found[ANY]


def _rows(table: Path) -> Iterator[list[str]]:
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return
    yield from (line.split() for line in lines)


def _sockets_of(pids: Iterable[int]) -> set[str]:
    found = set()
    for pid in pids:
        folder = f"/proc/{pid}/fd"
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            try:
                target = os.readlink(f"{folder}/{name}")
            except OSError:
                continue
            if target.startswith("socket:"):
                found.add(target)
    return found
