"""The run folder, which nobody may put another one in the place of."""

import os
from pathlib import Path

import pytest

from launcher.host.lock import HostLock
from modelserver.errors import ConfigurationError
from modelserver.settings import load


@pytest.fixture
def open_handed() -> int:
    """A process whose files anybody may write by itself; returns its umask before."""
    return os.umask(0)


def test_no_folder_above_it_can_be_written_by_others(tmp_path: Path, open_handed: int):
    try:
        home = tmp_path / "new" / "home"
        settings = load({"MODELSERVER_HOME": str(home), "HOME": str(tmp_path)})
        folder = settings.make_run_dir()
    finally:
        os.umask(open_handed)
    above = [each for each in folder.parents if tmp_path in each.parents]
    assert len(above) > 3
    assert not [each for each in above if each.stat().st_mode & 0o002]
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_key_with_a_line_break_is_the_key_of_a_file():
    key = "k" * 32
    assert load({"MODELSERVER_FLEET_KEY": f"{key}\n"}).given_key == key


def test_the_launchers_lock_opens_no_folder_to_others(tmp_path: Path):
    open_handed = os.umask(0)
    try:
        HostLock.acquire(tmp_path / "home" / "run" / "m" / "lock").release()
    finally:
        os.umask(open_handed)
    modes = [each.stat().st_mode & 0o777 for each in (tmp_path / "home").rglob("*")]
    assert not any(mode & 0o002 for mode in modes)
    assert (tmp_path / "home").stat().st_mode & 0o002 == 0


@pytest.mark.parametrize("kind", ["file", "loop", "long"])
def test_a_home_that_can_be_none_is_told_in_words(tmp_path: Path, kind: str):
    home = tmp_path / ("home" if kind != "long" else "x" * 300)
    if kind == "file":
        home.write_text("")
    elif kind == "loop":
        home.symlink_to(home)
    with pytest.raises(ConfigurationError, match=r"can be no folder"):
        load({"MODELSERVER_HOME": str(home)}).make_run_dir()
