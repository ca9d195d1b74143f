"""What programs are told that run in another folder than the command."""

from pathlib import Path

import pytest

from modelserver.cli.programs import environment
from modelserver.settings import load


def test_paths_that_are_relative_to_the_command_stay_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "key").write_text("k" * 32)
    named = ("FLEET_KEY_FILE", "PASSWORD_FILE", "ENGINES_HOME", "HOME")
    for name in named:
        monkeypatch.setenv(f"MODELSERVER_{name}", "key")
    monkeypatch.chdir(tmp_path)
    told = environment(load())
    for name in named:
        assert told[f"MODELSERVER_{name}"] == str(tmp_path / "key")
