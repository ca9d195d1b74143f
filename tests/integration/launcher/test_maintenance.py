"""A host that is drained and comes back, with real control and launchers."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from modelserver.cli import cli
from modelserver.store.control import read_wishes
from tests.support.fleets import Hosts, model, open_hosts
from tests.support.processes import ValkeyProcess, eventually


def test_a_drained_host_gives_its_engines_away_and_move_back_by_order(
    tmp_path: Path, valkey: ValkeyProcess, monkeypatch: pytest.MonkeyPatch
):
    with open_hosts(tmp_path, valkey.url, model("m", min_engines=2)) as hosts:
        for name, value in hosts.environment().items():
            monkeypatch.setenv(name, value)
        hosts.launch("a")
        hosts.launch("b")
        eventually(lambda: on(hosts) == {"a", "b"}, 40)
        (moved,) = [name for name in ("m-0", "m-1") if hosts.ready(name).host == "b"]

        told = say("drain-host", "b", "--reason", "new disk")
        assert f"those that it has go elsewhere: {moved}" in told
        eventually(lambda: on(hosts) == {"a"}, 40)
        told = say("why", "b")
        assert "new disk" in told
        assert "engines     none" in told
        assert "b is drained by" in say("status")

        say("undrain-host", "b")
        say("move", moved, "b")
        eventually(lambda: read_wishes(hosts.store)[moved].spec.host == "b", 20)
        assert "to host b by" in say("why", moved)
        say("move", moved, "--anywhere")
        assert CliRunner().invoke(cli, ["move", moved, "c"]).exit_code == 1


def on(hosts: Hosts) -> set[str]:
    """Where the engines serve."""
    return {hosts.ready(name, within=0).host for name in ("m-0", "m-1")}


def say(*arguments: str) -> str:
    done = CliRunner().invoke(cli, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return str(done.output)
