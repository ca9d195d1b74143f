"""What engines are given that no store holds."""

from pathlib import Path

import pytest

from launcher.host.secrets import Secrets
from modelserver.control.applied_fleet import compose
from modelserver.errors import ConfigurationError
from modelserver.fleet.file import Fleet, read_fleet

FLEET = """
[[models]]
name = "m"
engine = "command"
command = ["srv", "{port}"]
extra_args = ["--all"]
environment = { ONE = "1", TWO = "2" }
[[engines]]
model = "m"
host = "a"
[[engines]]
model = "m"
host = "a"
extra_args = ["--own"]
environment = { TWO = "own", THREE = "3" }
"""


def test_an_engine_gets_what_is_its_own_after_what_is_its_models(tmp_path: Path):
    file = tmp_path / "fleet.toml"
    file.write_text(FLEET)
    applied = compose(read_fleet(file), None, now=5.0).fleet
    (model,), pins = applied.specs(), applied.pins()
    secrets = Secrets(applied, file)
    plain, own = (secrets.fill(model, pin) for pin in pins)
    assert (plain.extra_args, plain.environment) == (
        ("--all",),
        {"ONE": "1", "TWO": "2"},
    )
    assert (own.extra_args, own.environment) == (
        ("--all", "--own"),
        {"ONE": "1", "TWO": "own", "THREE": "3"},
    )
    file.write_text(FLEET.replace(', THREE = "3"', ""))
    with pytest.raises(ConfigurationError, match="THREE") as raised:
        secrets.fill(model, pins[1])
    assert not raised.value.may_come


def test_a_fleet_file_that_is_not_there_may_come_with_its_disk(tmp_path: Path):
    file = tmp_path / "fleet.toml"
    file.write_text(FLEET)
    applied = compose(read_fleet(file), None, now=5.0).fleet
    (model,), pins = applied.specs(), applied.pins()
    with pytest.raises(ConfigurationError, match="THREE") as raised:
        Secrets(Fleet(), tmp_path / "mount" / "fleet.toml").fill(model, pins[1])
    assert raised.value.may_come
