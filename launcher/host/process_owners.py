"""Whose process a pid is: its user, its program, the engine that it belongs to."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psutil

from launcher.host.process import MARK, Identity
from launcher.host.process_environment import environment_of
from modelserver.births import Birth, find_birth
from modelserver.inventory import GpuProcess

#: Gives the engines that a launcher has started, each with its process.
Engines = Callable[[], Iterable[tuple[str, Identity]]]

#: What the kernel calls the numbers of processes of the host itself.
HOST_NUMBERS = "pid:[4026531836]"
#: Processes that are remembered at most; then all are forgotten.
REMEMBERED_PROCESSES = 1000


@dataclass(frozen=True, slots=True)
class _Known:
    birth: Birth | None
    owner: str
    command: str
    engine: str


def sees_the_host() -> bool:
    """Whether processes have the numbers here that the driver tells.

    In a container with numbers of its own another process has such a number, or none.
    """
    try:
        return os.readlink("/proc/self/ns/pid") == HOST_NUMBERS
    except OSError:
        return True  # It is not known, and most launchers are in no container.


class ProcessOwners:
    """Says whose processes are; remembers that as long as they live.

    ``engines`` gives the engines that this host's launcher has started; ``sees_all`` is
    whether it sees the processes that the driver tells of.
    """

    def __init__(self, engines: Engines = tuple, sees_all: bool | None = None) -> None:
        self._engines = engines
        self.sees_all = sees_the_host() if sees_all is None else sees_all
        self._present: tuple[tuple[str, Identity], ...] = ()
        self._known: dict[int, _Known] = {}

    def refresh(self) -> None:
        """Read which engines there are; to be called before each reading of GPUs."""
        present = tuple(self._engines())
        if present != self._present:
            self._present = present
            self._known.clear()
        elif len(self._known) > REMEMBERED_PROCESSES:
            self._known.clear()

    def identify(self, pid: int, used: int) -> GpuProcess | None:
        """The process; None where it is in another container and cannot be seen."""
        if not self.sees_all:
            return None
        try:
            process = psutil.Process(pid)
            known = self._known.get(pid)
            if known is None or known.birth != find_birth(pid):
                known = self._known[pid] = self._look(process)
        except psutil.Error:
            self._known.pop(pid, None)
            return None
        return GpuProcess(pid, used, known.owner, known.command, known.engine)

    def _look(self, process: psutil.Process) -> _Known:
        with process.oneshot():
            birth = find_birth(process.pid)
            command = process.name()
            try:
                owner = process.username()
            except (psutil.Error, KeyError):
                owner = ""
        return _Known(birth, owner, command, self._engine_of(process))

    def _engine_of(self, process: psutil.Process) -> str:
        """The engine, "" for none, by the mark in its environment or by its parents."""
        # None of another user's process, and of one that has just ended.
        mark = environment_of(process).get(MARK)
        try:
            family = [process, *process.parents()]
            tree = {each.pid for each in family}
        except psutil.Error:
            tree = set()
        for engine, identity in self._present:
            if mark is not None and mark == identity.mark:
                return engine
            if identity.pid in tree and identity.head_lives:
                return engine
            if identity.inner_pid in tree and identity.inner_lives:
                return engine
        return ""
