"""The lock of a run folder."""

import os
from pathlib import Path

import pytest

from launcher.host.lock import HostLock
from modelserver.errors import ConfigurationError


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
