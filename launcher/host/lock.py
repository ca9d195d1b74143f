"""One launcher per host: a locked file on this machine, a lease in the store."""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

from launcher.host.disks import read_disks
from modelserver.births import has_ended
from modelserver.errors import ConfigurationError
from modelserver.inventory import Disk, Host
from modelserver.private_folders import make_private
from modelserver.store.fleet.hosts import read_host
from modelserver.store.server.state import Store

#: The file in the run folder that a launcher keeps locked.
LOCK_FILE = "launcher.lock"
#: Where local locks are. Not by TMPDIR: programs of one host must find the same file.
TEMPORARY = Path("/tmp")


def lock_file(run_dir: Path) -> Path:
    """The file that is locked: in the run folder, unless other hosts see that too."""
    return choose_lock_file(run_dir, read_disks([run_dir]))


def choose_lock_file(run_dir: Path, disks: Iterable[Disk]) -> Path:
    """The same for a folder on these disks.

    On a disk of other hosts a lock may outlive its host, so it is on one of this host.
    """
    if not any(disk.is_remote for disk in disks):
        return run_dir / LOCK_FILE
    digest = hashlib.sha256(str(run_dir).encode()).hexdigest()[:16]
    return TEMPORARY / f"modelserver-{os.getuid()}" / f"{digest}.lock"


def is_locked(path: Path) -> bool:
    """Whether a launcher holds this lock now."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


class HostLock:
    """The lock of a run folder, held until ``release`` or the end of this process."""

    def __init__(self, descriptor: int, previous_pid: int) -> None:
        self._descriptor = descriptor
        self.previous_pid = previous_pid

    @classmethod
    def acquire(cls, path: Path) -> Self:
        """Lock the file and write this process's number into it.

        Raises ConfigurationError, which names the launcher that has it.
        """
        folder = path.parent
        make_private(folder)
        owner = folder.stat(follow_symlinks=False).st_uid
        if problem := find_owner_problem(folder, owner, os.getuid()):
            raise ConfigurationError(problem)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o644)
        text = os.read(descriptor, 32).decode(errors="replace").strip()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ConfigurationError(
                f"a launcher of this fleet runs on this host already: pid {text or '?'}"
                f" (lock {path}); end it first, or leave it to its work"
            ) from None
        with suppress(OSError):  # A full disk: it is locked without its number, too.
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return cls(descriptor, int(text) if text.isdigit() else 0)

    def release(self) -> None:
        """Give up the lock; the file stays, as a deleted one could be locked twice."""
        os.close(self._descriptor)


def find_owner_problem(folder: Path, owner: int, user: int) -> str | None:
    """Why a user's lock is not to be in a folder of this owner.

    In the folder of all anybody may make it. A run folder's owner says who may write
    in it.
    """
    if folder.parent != TEMPORARY or owner == user:
        return None
    return (
        f"{folder} is of another user (number {owner}); remove it, or run the launcher "
        "as that user"
    )


def await_lease(store: Store, host: str, lock: HostLock, seconds: float) -> None:
    """Return once no other launcher holds the host's lease; blocks for ``seconds``.

    A lease that is then still held is renewed by a launcher on another machine or with
    another home folder. Raises ConfigurationError, which names that launcher.
    """
    deadline = time.monotonic() + seconds + 1.0
    while (holder := _holder(store, host)) is not None:
        if holder.pid == lock.previous_pid and _is_gone(holder.pid):
            return
        if time.monotonic() > deadline:
            raise ConfigurationError(
                f'host "{host}" has a launcher already: pid {holder.pid}, on another '
                "machine or with another MODELSERVER_HOME; end it, or give this host "
                "a name of its own with MODELSERVER_HOST"
            )
        time.sleep(0.1)


def _is_gone(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return has_ended(psutil.Process(pid))
    return True


def _holder(store: Store, host: str) -> Host | None:
    with store.reachable():
        return read_host(store, host)
