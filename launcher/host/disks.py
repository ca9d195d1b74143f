"""Reads how much room the host's disks have, in a thread: a disk may not answer."""

import errno
import logging
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryFile

from launcher.host.troubles import HostTroubles
from modelserver.inventory import Disk
from modelserver.missing_files import describe_missing

_log = logging.getLogger(__name__)

#: Seconds between two readings of the disks.
DISK_READ_SECONDS = 5.0
#: The kernel's list of what is mounted here.
MOUNTS = Path("/proc/self/mounts")


class Disks:
    """The newest reading. Never waits for a disk."""

    def __init__(self, folders: Iterable[Path], troubles: HostTroubles) -> None:
        self._folders = tuple(folders)
        self._troubles = troubles
        self._closing = threading.Event()
        #: How the disks are now; none before the first reading.
        self.now: tuple[Disk, ...] = ()

    def start(self) -> None:
        """Read from now on."""
        threading.Thread(target=self._run, name="disks", daemon=True).start()

    def close(self) -> None:
        """Read no more."""
        self._closing.set()

    def _run(self) -> None:
        while not self._closing.is_set():
            with self._troubles.guard("host", "read its disks"):
                self._look()
            self._closing.wait(DISK_READ_SECONDS)

    def _look(self) -> None:
        known = {each.path for each in self.now if each.is_short}
        self.now = tuple(read_disks(self._folders))
        for each in self.now:
            if each.is_short and each.path not in known:
                _log.warning("the disk of %s is nearly full", each.path)


def read_disks(folders: Iterable[Path]) -> Iterator[Disk]:
    """The file systems that the folders are on, each once; leaves out what fails."""
    seen = set()
    for folder in folders:
        try:
            there = next(path for path in (folder, *folder.parents) if path.exists())
            device, found = there.stat().st_dev, os.statvfs(there)
        except OSError:
            continue
        if device in seen:
            continue
        seen.add(device)
        # A disk without free files is as full as one without free bytes.
        usable = found.f_bavail if found.f_favail or not found.f_files else 0
        size = found.f_frsize
        yield Disk(str(folder), usable * size, found.f_blocks * size, _kind(there))


def try_writing(folder: Path) -> None:
    """Write a little into a folder, and take it away. Raises OSError with its name."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder, buffering=0) as file:
            file.write(bytes(4096))
    except FileExistsError as error:
        # A link that leads nowhere, or a file.
        why = describe_missing(str(folder)) or f"{folder} is no folder"
        raise OSError(errno.ENOTDIR, why) from error
    except OSError as error:
        # Not the file's own name, which is another one each time.
        raise OSError(error.errno, error.strerror, str(folder)) from error


def try_appending(file: Path) -> None:
    """Open a file to append to it, which is made if it is not there. Raises OSError.

    Does not wait for who reads a pipe: where nobody does, that is an error.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
    os.close(os.open(file, flags, 0o666))


def is_full(folder: Path) -> bool:
    """Whether nothing more can be written there."""
    return any(disk.free == 0 for disk in read_disks([folder]))


def _kind(path: Path) -> str:
    """The kind of file system that a path is on, "" where the kernel does not say."""
    kinds = {}
    try:
        lines = MOUNTS.read_text().splitlines()
    except OSError:
        return ""
    for _, point, kind, *_ in map(str.split, lines):
        kinds[point.replace("\\040", " ")] = kind
    here = path.resolve()
    return next((kinds[str(p)] for p in (here, *here.parents) if str(p) in kinds), "")
