"""The run folder, which nobody may put another one in the place of."""

import os
from pathlib import Path

import pytest

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
