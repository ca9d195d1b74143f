"""Processes of ended engines that no signal ends: told, and kept from their GPUs.

A process that is killed ends once the kernel lets go of it, and where a driver or a
disk does not answer that may be never. What it had of its GPUs may still be in use, so
nothing is started there until it has ended.
"""

import json
import logging
import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from launcher.host.gpu_turns import GpuTurns
from launcher.host.troubles import HostTroubles
from modelserver.births import Birth, find_birth, has_ended
from modelserver.decoding import decode
from modelserver.whole_files import write_whole

_log = logging.getLogger(__name__)

#: The file of a run folder that names them, for the next launcher.
SURVIVORS_FILE = "survivors.json"


@dataclass(frozen=True, slots=True)
class Survivor:
    """One such process."""

    engine: str
    pid: int
    birth: Birth
    name: str
    #: The GPUs that its engine had.
    uuids: tuple[str, ...] = ()

    @property
    def who(self) -> str:
        """Such as "pid 4711 (python) of engine m-0"."""
        return f"pid {self.pid} ({self.name}) of engine {self.engine}"

    @property
    def trouble(self) -> str:
        """What is told of it, with what to do."""
        try:
            process = psutil.Process(self.pid)
            stuck = process.status() == psutil.STATUS_DISK_SLEEP
            ours = os.getuid() in (0, process.uids().real)
        except psutil.Error:
            stuck = ours = False
        remedy = "end it by hand" if not ours else "look at `dmesg` of that host"
        why = "cannot be ended" if not ours else "was killed and does not end"
        if stuck:
            why += ": it waits for a driver or a disk"
            remedy += ", and restart it if the process stays"
        kept = "; nothing is started on its GPUs meanwhile" if self.uuids else ""
        return f"{self.who} {why}; {remedy}{kept}"

    def lives(self) -> bool:
        """Whether it is still there; its number may be another's by now."""
        if not self.birth.is_that_of(find_birth(self.pid)):
            return False
        with suppress(psutil.NoSuchProcess):
            return not has_ended(psutil.Process(self.pid))
        return False


class Survivors:
    """Those of one launcher's engines. For several threads."""

    def __init__(self, file: Path, troubles: HostTroubles, turns: GpuTurns) -> None:
        self._file, self._troubles, self._turns = file, troubles, turns
        self._lock = threading.Lock()
        self._known: tuple[Survivor, ...] = ()
        for each in self._read():
            self._add(each)

    def note(
        self, engine: str, left: Iterable[psutil.Process], uuids: tuple[str, ...]
    ) -> None:
        """Take note of what is left of an engine after it was ended by force."""
        with self._lock:
            for process in left:
                with suppress(psutil.Error):
                    birth = find_birth(process.pid) or Birth()
                    each = Survivor(engine, process.pid, birth, process.name(), uuids)
                    self._turns.keep_on(engine, _keeper(engine))
                    self._add(each)
            self._write()

    def look(self) -> None:
        """Forget those that have ended."""
        with self._lock:
            ended = [each for each in self._known if not each.lives()]
            self._known = tuple(each for each in self._known if each not in ended)
            left = {each.engine for each in self._known}
            for each in ended:
                _log.info("%s has ended", each.who)
                self._troubles.end(_key(each))
                if each.engine not in left:
                    self._turns.give_back(_keeper(each.engine))
            if ended:
                self._write()

    def find_kept(self) -> dict[str, str]:
        """The GPUs on which nothing is to be started, each with why."""
        return {
            uuid: f"{each.who} does not end and may use it; see `modelserver doctor`"
            for each in self._known
            for uuid in each.uuids
        }

    def _add(self, each: Survivor) -> None:
        if each not in self._known:
            self._known += (each,)
            self._troubles.note(_key(each), each.trouble)
            _log.error("%s", each.trouble)

    def _read(self) -> list[Survivor]:
        try:
            values = json.loads(self._file.read_text())
            found = [decode(Survivor, each) for each in values]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            _log.warning("%s is left aside: %s", self._file, error)
            return []
        return [each for each in found if each.lives()]

    def _write(self) -> None:
        try:
            text = json.dumps([asdict(each) for each in self._known])
            write_whole(self._file, text)
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._file, error)


def _keeper(engine: str) -> str:
    """As what all that is left of an engine keeps its GPUs."""
    return f"survivors of engine {engine}"


def _key(each: Survivor) -> str:
    return f"survivor {each.pid} of engine {each.engine}"
