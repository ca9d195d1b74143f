"""The lock of a run folder."""

import os
from pathlib import Path

import pytest

from launcher.host.lock import LOCK_FILE, HostLock, lock_file
from modelserver.errors import ConfigurationError
from modelserver.network_disks import find_network_disk


def test_lock_is_held_by_one_and_names_it(tmp_path: Path) -> None:
    path = tmp_path / "run" / "launcher.lock"
    first = HostLock.acquire(path)
    assert first.previous_pid == 0
    with pytest.raises(ConfigurationError, match=f"pid {os.getpid()}"):
        HostLock.acquire(path)
    first.release()
    second = HostLock.acquire(path)
    assert second.previous_pid == os.getpid()
    second.release()


def test_lock_of_a_folder_on_the_networks_disk_is_local(tmp_path: Path) -> None:
    assert lock_file(tmp_path) == tmp_path / LOCK_FILE
    mounts = f"h:/x {tmp_path} nfs4 rw 0 0"
    assert find_network_disk(tmp_path / "run", mounts) == "nfs4"
    assert not lock_file(tmp_path, mounts).is_relative_to(tmp_path)
