"""Commands on screens that show little: no colours, few letters, no UTF-8."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from modelserver.cli import cli
from tests.support.fleet_records import Records
from tests.support.fleets import CLI
from tests.support.processes import ROOT, ValkeyProcess

#: What an engine or a person may say.
SAID = "Müller \N{HORIZONTAL ELLIPSIS} \N{SNOWMAN} " + "waits for its weights " * 20


@pytest.fixture
def records(valkey: ValkeyProcess, tmp_path: Path) -> Iterator[Records]:
    records = Records.open(tmp_path, valkey.url, ("chat", "vectors", "absent"))
    records.write(engines=4, alert=SAID)
    yield records
    records.store.client.close()


@pytest.mark.parametrize("command", ["status", "top", "alerts", "models", "why chat-0"])
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_a_terminal_cannot_show_ends_no_command(
    records: Records, command: str, encoding: str
):
    shown = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run(
        [*CLI, *command.split()],
        cwd=ROOT,
        env={**os.environ, **records.environment, **shown},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert "chat" in done.stdout.decode(encoding)


def test_no_color_is_heard_by_every_command(records: Records):
    def said(**more: str) -> str:
        environment = {**records.environment, **more}
        return CliRunner(env=environment).invoke(cli, ["doctor"], color=True).stdout

    assert "\x1b[" in said(NO_COLOR="")
    assert "\x1b[" not in said(NO_COLOR="1")
