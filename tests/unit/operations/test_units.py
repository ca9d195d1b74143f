"""The units of a host, without writing any."""

import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from modelserver.cli.local_stack import stop_seconds
from modelserver.cli.units import choose, install
from modelserver.errors import ConfigurationError
from modelserver.operations.units import TARGET, UnitPlace, units
from modelserver.settings import Settings, load

MODEL = '[[models]]\nname = "m"\npath = "a/b"\ngpus = 1\ndrain_seconds = 300\n'
OWN_SERVER = '[redis]\nurl = "redis://h"\n'


def settings(folder: Path, text: str) -> Settings:
    (folder / "fleet.toml").write_text(text)
    return load({"MODELSERVER_HOME": str(folder)}, folder)


def written(settings: Settings, user: str = "ada") -> dict[str, str]:
    place = UnitPlace(("/bin/modelserver",), "/etc/modelserver/e", "/srv", user)
    return dict(units(choose((), settings), place, stop_seconds(settings)))


def test_a_launcher_may_take_longer_to_stop_than_its_engines_to_drain(tmp_path: Path):
    launcher = written(settings(tmp_path, MODEL))["modelserver-launcher.service"]
    assert "TimeoutStopSec=360" in launcher


def test_engines_outlive_a_launcher_that_dies_or_is_reloaded(tmp_path: Path):
    launcher = written(settings(tmp_path, MODEL))["modelserver-launcher.service"]
    assert "KillMode=process" in launcher
    assert "ExecReload=/bin/kill -QUIT $MAINPID" in launcher


def test_there_is_a_server_only_for_a_fleet_that_embeds_it(tmp_path: Path):
    assert "modelserver-valkey.service" in written(settings(tmp_path, MODEL))
    own = settings(tmp_path, MODEL + OWN_SERVER)
    assert "modelserver-valkey.service" not in written(own)
    with pytest.raises(ConfigurationError, match="of its own"):
        choose(("valkey",), own)


def test_the_target_names_each_unit(tmp_path: Path):
    found = written(settings(tmp_path, MODEL))
    target = found.pop(TARGET)
    assert all(name in target and TARGET in text for name, text in found.items())


def test_paths_of_any_name_stay_what_they_are(tmp_path: Path):
    place = UnitPlace(("/my bin/100%/python", "-m"), "/e", "/srv/100%", "ada")
    (_, text), _ = units(["beat"], place, {"beat": 10.0})
    assert 'ExecStart="/my bin/100%%/python" "-m" beat' in text
    assert "WorkingDirectory=/srv/100%%" in text.splitlines()


def test_a_folder_cannot_add_a_line_to_a_unit():
    place = UnitPlace(("/bin/modelserver",), "/e", "/srv\nExecStartPre=+/evil", "ada")
    with pytest.raises(ConfigurationError, match="no unit can have"):
        list(units(["beat"], place, {"beat": 10.0}))


def test_variables_are_quoted_as_systemd_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "it's\\mine"
    folder.mkdir()
    (folder / "fleet.toml").write_text(MODEL)
    monkeypatch.chdir(folder)
    known = {"XDG_CONFIG_HOME": str(tmp_path), "MODELSERVER_HOME": str(tmp_path)}
    known |= {"MODELSERVER_HOST": "the-one"}
    done = CliRunner().invoke(
        install, ["--user"], env=known | {"MODELSERVER_FLEET": None}
    )
    assert done.exit_code == 0, done.output
    file = tmp_path / "modelserver/environment"
    assert file.stat().st_mode & 0o777 == 0o600
    lines = shlex.split(file.read_text())
    assert f"MODELSERVER_FLEET={folder / 'fleet.toml'}" in lines
    assert "MODELSERVER_HOST=the-one" in lines
    assert "loginctl enable-linger" in done.output.splitlines()


def test_units_of_ones_own_systemd_run_as_nobody_else():
    done = CliRunner().invoke(install, ["--user", "--as", "ada"])
    assert isinstance(done.exception, ConfigurationError)
    assert "run as you" in str(done.exception)


def test_a_users_own_systemd_has_no_user_and_no_network(tmp_path: Path):
    text = "".join(written(settings(tmp_path, MODEL), user="").values())
    assert "User=" not in text
    assert "network-online" not in text
    assert "WantedBy=default.target" in text
