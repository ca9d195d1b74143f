"""One launcher of a host at a time loads an engine on a GPU, or keeps it for one.

An engine measures what is free while it loads, and launchers of several fleets and
users do not see each other's promises. A turn is a name of an abstract socket: every
user may take it, there is no file, and it is given back by the end of the process. An
engine that shares its GPUs with none keeps them by other names until it ends, however
little of their memory it takes. It inherits these sockets, so that it keeps its GPUs
while no launcher runs, and what is left of it keeps them, too. Launchers with networks
of their own (containers) do not meet so.
"""

import os
import pwd
import re
import socket
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

#: What the names of the sockets begin with.
NAME_PREFIX = "\0modelserver-"
#: What follows in the name of a turn; then comes the UUID of the GPU.
LOADS = "loads-"
#: The same for a GPU that is kept; after the UUID come the numbers of the launcher's
#: user and of the launcher, and how its engine's mark begins.
KEEPS = "has-"
#: Characters of a mark that stand in such a name, which is bounded.
MARK_LENGTH = 12
#: The kernel's list of sockets, abstract ones with "@" for the first byte.
SOCKETS = Path("/proc/net/unix")
#: Others that can ask who has a turn; later ones are not told.
ASKING = 4096
#: The form of what the kernel says of the other end: its pid, user and group.
_PEER = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class GpuKeeping:
    """That an engine, or what is left of it, needs all of a GPU."""

    uuid: str
    #: The launcher that started it, and its user.
    pid: int
    user: int
    #: How the mark of the engine's processes begins.
    mark: str

    @property
    def reason(self) -> str:
        """Why others leave that GPU out, and what to do."""
        who = f"pid {self.pid} ({_login(self.user)})"
        if self.has_launcher:
            return (
                f"the launcher {who} has an engine on it that needs all of it; give "
                "each launcher GPUs of its own by gpus in [[hosts]], or end one"
            )
        return (
            f"an engine of the launcher {who} is on it and needs all of it, or what is "
            "left of that engine; start that launcher again, or end that process: "
            f"grep -l MARK={self.mark} /proc/*/environ"
        )

    @property
    def has_launcher(self) -> bool:
        """Whether another launcher, which started it, runs."""
        with suppress(psutil.Error):
            launcher = psutil.Process(self.pid)
            return self.pid != os.getpid() and launcher.uids().real == self.user
        return False


class GpuTurns:
    """The turns that this launcher has, and the GPUs that it keeps, by engine.

    ``own_marks`` gives the marks of the engines that it looks after.
    """

    def __init__(
        self,
        prefix: str = NAME_PREFIX,
        own_marks: Callable[[], Iterable[str]] | None = None,
    ) -> None:
        self._loads, self._keeps = prefix + LOADS, prefix + KEEPS
        self._own_marks = own_marks or (lambda: self._marks.values())
        self._taken: dict[str, dict[str, socket.socket]] = {}
        self._kept: dict[str, dict[str, socket.socket]] = {}
        self._marks: dict[str, str] = {}

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

    def keep(self, engine: str, uuids: Iterable[str], mark: str) -> tuple[int, ...]:
        """Let others know that an engine needs all of these GPUs, until ``give_back``.

        Returns what the engine is to inherit: it keeps them as long as any of its
        processes has that. A GPU that another one keeps already stays that one's.
        """
        self._marks[engine] = mark
        kept, others = self._kept.setdefault(engine, {}), self.find_kept()
        for uuid in uuids:
            if uuid in kept or uuid in others:
                continue
            mine = socket.socket(socket.AF_UNIX)
            name = f"{uuid}-{os.getuid()}-{os.getpid()}-{mark[:MARK_LENGTH]}"
            try:
                mine.bind(self._keeps + name)
            except OSError:
                mine.close()  # Its engine has it from this launcher.
            else:
                kept[uuid] = mine
        return tuple(each.fileno() for each in kept.values())

    def find_kept(self) -> dict[str, str]:
        """The GPUs that are kept, and not for this launcher's engines, each with why.

        What is left of an engine of its own counts once the launcher has given it up.
        """
        name = re.escape(self._keeps.replace("\0", "@"))
        try:
            text = SOCKETS.read_text(errors="replace")
        except OSError:
            return {}
        found = re.findall(
            rf" {name}(\S+)-(\d{{1,10}})-(\d{{1,9}})-(\w+)$", text, re.MULTILINE
        )
        if not found:
            return {}
        own = {mark[:MARK_LENGTH] for mark in self._own_marks()}
        others = [
            GpuKeeping(uuid, int(pid), int(user), mark)
            for uuid, user, pid, mark in found
            if mark not in own
        ]
        # One that was adopted is kept by two names.
        others.sort(key=lambda each: each.has_launcher)
        return {each.uuid: each.reason for each in others}

    def end_loading(self, engine: str) -> None:
        """Let others load where an engine has loaded."""
        for held in self._taken.pop(engine, {}).values():
            held.close()

    def keep_on(self, engine: str, survivors: str) -> None:
        """Keep the GPUs of an engine for what is left of it, until that gives back."""
        if kept := self._kept.pop(engine, None):
            self._kept[survivors] = self._kept.get(survivors, {}) | kept

    def give_back(self, engine: str) -> None:
        """Let others have what an engine has no more."""
        self.end_loading(engine)
        self._marks.pop(engine, None)
        for held in self._kept.pop(engine, {}).values():
            held.close()


def _login(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"


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
    return f"pid {pid} ({_login(user)})"
