"""A host that is drained and comes back, with real control and launchers."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from modelserver.cli import cli
from modelserver.store.control import read_wishes
from tests.support.fleets import model, open_hosts
from tests.support.processes import ValkeyProcess, eventually


def test_a_drained_host_gives_its_engine_away_and_it_moves_back_by_order(
    tmp_path: Path, valkey: ValkeyProcess, monkeypatch: pytest.MonkeyPatch
):
    with open_hosts(tmp_path, valkey.url, model("m")) as hosts:
        for name, value in hosts.environment().items():
            monkeypatch.setenv(name, value)
        hosts.launch("a")
        hosts.launch("b")
        drained = hosts.ready("m-0").host
        (other,) = {"a", "b"} - {drained}

        told = say("drain-host", drained, "--reason", "new disk")
        assert "those that it has go elsewhere: m-0" in told
        eventually(lambda: hosts.ready("m-0", within=0).host == other)
        told = say("why", drained)
        assert "new disk" in told
        assert "engines     none" in told
        assert f"{drained} is drained by" in say("status")

        say("undrain-host", drained)
        say("move", "m-0", drained)
        eventually(lambda: read_wishes(hosts.store)["m-0"].spec.host == drained)
        assert f"to host {drained} by" in say("why", "m-0")
        say("move", "m-0", "--anywhere")
        assert CliRunner().invoke(cli, ["move", "m-0", "c"]).exit_code == 1


def say(*arguments: str) -> str:
    done = CliRunner().invoke(cli, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return str(done.output)
