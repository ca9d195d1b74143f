"""The embedded server, started as `up` and `valkey` start it."""

import subprocess
from pathlib import Path

import pytest

from modelserver.errors import ModelserverError
from modelserver.operations.embedded_valkey import prepare
from tests.support.processes import eventually


def test_it_runs_once_in_a_folder_of_any_name(tmp_path: Path):
    server = prepare(tmp_path / 'my "run" folder')
    with subprocess.Popen(server.argv, stdout=subprocess.DEVNULL) as process:
        eventually(server.answers, within=30)
        with pytest.raises(ModelserverError, match=f"already, at port {server.port}"):
            prepare(tmp_path / 'my "run" folder')
        process.terminate()
    assert prepare(tmp_path / 'my "run" folder').password == server.password
