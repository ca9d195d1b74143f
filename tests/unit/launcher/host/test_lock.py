"""The lock of a run folder."""

import os
from pathlib import Path

import pytest

from launcher.host.lock import LOCK_FILE, HostLock, choose_lock_file, lock_file
from modelserver.errors import ConfigurationError
from modelserver.inventory import Disk


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


def test_the_lock_of_a_folder_that_hosts_share_is_local(tmp_path: Path) -> None:
    assert lock_file(tmp_path) == tmp_path / LOCK_FILE
    remote = [Disk(str(tmp_path), 1, 1, "nfs4")]
    local = choose_lock_file(tmp_path, remote)
    assert local.is_relative_to("/tmp")
    assert not local.is_relative_to(tmp_path)
    assert local != choose_lock_file(tmp_path / "other", remote)


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (tmp_path / "launcher.lock").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic"):
        HostLock.acquire(tmp_path / "launcher.lock")
    assert precious.read_text() == "kept"


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives folders away")
def test_another_users_folder_has_no_lock_of_ours_but_in_the_run_folder(
    tmp_path: Path,
) -> None:
    run_dir, local = tmp_path / "run", Path(f"/tmp/modelserver-test-{os.getpid()}")
    for folder in (run_dir, local):
        folder.mkdir()
        os.chown(folder, 12345, -1)
    HostLock.acquire(run_dir / LOCK_FILE).release()
    try:
        with pytest.raises(ConfigurationError, match=r"of another user \(number 12345"):
            HostLock.acquire(local / LOCK_FILE)
    finally:
        local.rmdir()
