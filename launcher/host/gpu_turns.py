"""One launcher of a host at a time loads an engine on a GPU.

An engine measures what is free while it loads, and launchers of several fleets and
users do not see each other's promises. A turn is a name of an abstract socket: every
user may take it, there is no file, and it is given back by the end of the process.
Launchers with networks of their own (containers) do not meet so.
"""

import pwd
import socket
import struct
from collections.abc import Iterable

#: What the names of the sockets begin with; the UUID of the GPU follows.
NAME_PREFIX = "\0modelserver-loads-"
#: Others that can ask who has a turn; later ones are not told.
ASKING = 4096
#: The form of what the kernel says of the other end: its pid, user and group.
_PEER = struct.Struct("3i")


class GpuTurns:
    """The turns that this launcher has, by engine."""

    def __init__(self, prefix: str = NAME_PREFIX) -> None:
        self._prefix = prefix
        self._taken: dict[str, dict[str, socket.socket]] = {}

    def find_other(self, engine: str, uuids: Iterable[str]) -> tuple[str, str] | None:
        """Take the turns on all these GPUs; else take none, and say which and whose."""
        taken = self._taken.setdefault(engine, {})
        for uuid in uuids:
            if uuid in taken:
                continue
            mine = socket.socket(socket.AF_UNIX)
            try:
                mine.bind(self._prefix + uuid)
            except OSError:
                mine.close()
                self.give_back(engine)
                return uuid, _holder(self._prefix + uuid)
            # So that others can ask who has it; nobody is answered.
            mine.listen(ASKING)
            taken[uuid] = mine
        return None

    def give_back(self, engine: str) -> None:
        """Let others load where an engine has loaded, or does not load any more."""
        for held in self._taken.pop(engine, {}).values():
            held.close()


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
