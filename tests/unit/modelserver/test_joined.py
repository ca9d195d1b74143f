"""A machine that has joined a fleet is its host wherever there is no fleet file."""

from pathlib import Path

import pytest

from modelserver.joined import NAME_FILE, find_joined, joined_file
from modelserver.settings import MACHINE, load

URL = "redis://state:6379/0"


def note(home: Path, url: str, name: str) -> Path:
    file = joined_file(home, url)
    file.parent.mkdir(parents=True)
    file.write_text(f'[redis]\nurl = "{url}"\n')
    file.with_name(NAME_FILE).write_text(name)
    return file


def test_a_folder_without_a_fleet_file_belongs_to_the_joined_fleet(tmp_path: Path):
    file = note(tmp_path, URL, "gpu-2")
    known = {"MODELSERVER_HOME": str(tmp_path)}
    settings = load(known, tmp_path)
    assert (settings.fleet_file, settings.host) == (file, "gpu-2")
    assert load(known | {"MODELSERVER_HOST": "other"}, tmp_path).host == "other"
    with_password = {"MODELSERVER_REDIS_URL": "redis://:secret@state:6379/0"}
    assert load(known | with_password, tmp_path).host == "gpu-2"


def test_a_fleet_file_in_the_folder_comes_first(tmp_path: Path):
    note(tmp_path, URL, "gpu-2")
    (tmp_path / "fleet.toml").write_text('[redis]\nurl = "redis://other:6379/0"\n')
    settings = load({"MODELSERVER_HOME": str(tmp_path)}, tmp_path)
    assert settings.fleet_file == tmp_path / "fleet.toml"
    assert settings.host == MACHINE


@pytest.mark.parametrize("url", ["redis://other:6379/0", "redis://state:6379/1"])
def test_the_redis_of_another_fleet_is_not_that_of_the_joined_one(
    tmp_path: Path, url: str
):
    note(tmp_path, URL, "gpu-2")
    known = {"MODELSERVER_HOME": str(tmp_path), "MODELSERVER_REDIS_URL": url}
    assert load(known, tmp_path).host == MACHINE


def test_of_two_fleets_none_is_guessed(tmp_path: Path):
    note(tmp_path, URL, "gpu-2")
    note(tmp_path, "redis://other:6379/0", "gpu-3")
    assert find_joined(tmp_path, "") is None
