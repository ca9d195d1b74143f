"""Secrets that are in files and not in variables or the fleet file."""

from pathlib import Path

import pytest

from modelserver.errors import ConfigurationError
from modelserver.settings import load


def test_a_password_and_the_key_may_be_in_files(tmp_path: Path):
    for name, text in (("password", "a/b\n"), ("key", "k" * 32 + "\n")):
        (tmp_path / name).write_text(text)
    (tmp_path / "fleet.toml").write_text(
        '[redis]\nurl = "redis://h/0"\npassword_file = "password"\n'
    )
    found = load({"MODELSERVER_FLEET_KEY_FILE": "key"}, tmp_path)
    assert found.redis_url == found.results_url == "redis://:a%2Fb@h/0"
    assert found.given_key == "k" * 32


def test_a_file_of_a_secret_that_cannot_be_read_is_named(tmp_path: Path):
    (tmp_path / "fleet.toml").write_text(
        '[redis]\nurl = "redis://h/0"\npassword_file = "none"\n'
    )
    with pytest.raises(ConfigurationError, match=r"password_file names .*/none"):
        assert load({}, tmp_path).redis_url
    with pytest.raises(ConfigurationError, match="KEY_FILE names none"):
        load({"MODELSERVER_FLEET_KEY_FILE": "none"}, tmp_path)
