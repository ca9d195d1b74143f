"""One launcher of a host at a time loads an engine on a GPU, or keeps it for one.

An engine measures what is free while it loads, and launchers of several fleets and
users do not see each other's promises. A turn is a name of an abstract socket: every
user may take it, there is no file, and it is given back by the end of the process. An
engine that shares its GPUs with none keeps them by other names until it ends, however
little of their memory it takes. Launchers with networks of their own (containers) do
not meet so.
"""

import os
import pwd
import re
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

import psutil

#: What the names of the sockets begin with.
NAME_PREFIX = "\0modelserver-"
#: What follows in the name of a turn; then comes the UUID of the GPU.
LOADS = "loads-"
#: The same for a GPU that is kept; the number of the launcher comes after the UUID.
KEEPS = "has-"
#: The kernel's list of sockets, abstract ones with "@" for the first byte.
SOCKETS = Path("/proc/net/unix")
#: Others that can ask who has a turn; later ones are not told.
ASKING = 4096
#: The form of what the kernel says of the other end: its pid, user and group.
_PEER = struct.Struct("3i")


class GpuTurns:
    """The turns that this launcher has, and the GPUs that it keeps, by engine."""

    def __init__(self, prefix: str = NAME_PREFIX) -> None:
        self._loads, self._keeps = prefix + LOADS, prefix + KEEPS
        self._taken: dict[str, dict[str, socket.socket]] = {}
        self._kept: dict[str, dict[str, socket.socket]] = {}

    def find_other(self, engine: str, uuids: Iterable[str]) -> tuple[str, str] | None:
        """Take the turns on all these GPUs; else take none, and say which and whose."""
        taken = self._taken.setdefault(engine, {})
        for uuid in uuids:
            if uuid in taken:
                continue
            mine = socket.socket(socket.AF_UNIX)
            try:
                mine.bind(self._loads + uuid)
            except OSError:
                mine.close()
                self.give_back(engine)
                return uuid, _holder(self._loads + uuid)
            # So that others can ask who has it; nobody is answered.
            mine.listen(ASKING)
            taken[uuid] = mine
        return None

    def keep(self, engine: str, uuids: Iterable[str]) -> None:
        """Let others know that an engine needs all of these GPUs, until ``give_back``.

        A GPU that another launcher keeps already stays that one's.
        """
        kept, others = self._kept.setdefault(engine, {}), self.find_kept()
        for uuid in uuids:
            if uuid in kept or uuid in others:
                continue
            mine = socket.socket(socket.AF_UNIX)
            try:
                mine.bind(f"{self._keeps}{uuid}-{os.getpid()}")
            except OSError:
                mine.close()  # Another engine of this launcher ends there just now.
            else:
                kept[uuid] = mine

    def find_kept(self) -> dict[str, str]:
        """The GPUs that other launchers keep, each with who does: "pid 4711 (anna)"."""
        name = re.escape(self._keeps.replace("\0", "@"))
        try:
            text = SOCKETS.read_text(errors="replace")
        except OSError:
            return {}
        found = re.findall(rf" {name}(\S+)-([0-9]{{1,9}})$", text, re.MULTILINE)
        return {
            uuid: _describe(int(pid)) for uuid, pid in found if int(pid) != os.getpid()
        }

    def end_loading(self, engine: str) -> None:
        """Let others load where an engine has loaded."""
        for held in self._taken.pop(engine, {}).values():
            held.close()

    def give_back(self, engine: str) -> None:
        """Let others have what an engine has no more."""
        self.end_loading(engine)
        for held in self._kept.pop(engine, {}).values():
            held.close()


def _describe(pid: int) -> str:
    try:
        return f"pid {pid} ({psutil.Process(pid).username()})"
    except (psutil.Error, KeyError):
        return f"pid {pid}"


def _holder(name: str) -> str:
    """The process that has a turn: "pid 4711 (anna)"."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.setblocking(False)
        try:
            asking.connect(name)
            said = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        except OSError:
            return "another one"
    pid, user, _ = _PEER.unpack(said)
    try:
        return f"pid {pid} ({pwd.getpwuid(user).pw_name})"
    except KeyError:
        return f"pid {pid} (user {user})"
