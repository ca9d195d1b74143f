"""Free ports of this host, and who holds a port that is not free."""

import random
import socket
from collections.abc import Collection

import psutil

from launcher.engine_types import LOOPBACK

#: Below the range from which the kernel takes ports for outgoing connections.
FIRST_PORT = 30_000
LAST_PORT = 32_767


def choose(taken: Collection[int]) -> int | None:
    """A free port that no other engine has been promised, None if there is none."""
    count = LAST_PORT - FIRST_PORT + 1
    begin = random.randrange(count)
    for step in range(count):
        port = FIRST_PORT + (begin + step) % count
        if port not in taken and is_free(port):
            return port
    return None


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        # As servers do: connections of the one before do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def holder(port: int) -> str:
    """Who listens on a port, as far as this user may know."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.Error:
        return "a process of another user"
    for connection in connections:
        listens = connection.status == psutil.CONN_LISTEN
        if listens and connection.laddr.port == port and connection.pid:
            return f"pid {connection.pid} ({_command(connection.pid)})"
    return "a process of another user"


def _command(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())[:120] or "?"
    except psutil.Error:
        return "?"
