"""The lock of a run folder."""

import os
from pathlib import Path

import pytest

from launcher.host.lock import (
    LOCK_FILE,
    HostLock,
    choose_lock_file,
    find_owner_problem,
    lock_file,
)
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


def test_another_users_folder_has_no_lock_of_ours_but_in_the_run_folder() -> None:
    local = Path("/tmp/modelserver-1000")
    assert find_owner_problem(local, owner=1000, user=1000) is None
    problem = find_owner_problem(local, owner=12345, user=1000)
    assert problem == (
        "/tmp/modelserver-1000 is of another user (number 12345); remove it, or run "
        "the launcher as that user"
    )
    for run_dir in (Path("/srv/run"), Path("/tmp/fleet/run")):
        assert find_owner_problem(run_dir, owner=12345, user=1000) is None
