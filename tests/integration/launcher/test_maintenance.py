"""A host that is drained and comes back, with real control and launchers."""

from pathlib import Path

from modelserver.store.fleet.control import read_wishes
from tests.support.fleets import Hosts, model, open_hosts
from tests.support.processes import ValkeyProcess, eventually


def test_a_drained_host_gives_its_engine_away_and_it_moves_back_by_order(
    tmp_path: Path, valkey: ValkeyProcess
):
    with open_hosts(tmp_path, valkey.url, model("m")) as hosts:
        hosts.launch("a")
        hosts.launch("b")
        drained = hosts.ready("m-0").host
        (other,) = {"a", "b"} - {drained}

        told = say(hosts, "drain-host", drained, "--reason", "new disk")
        assert "those that it has go elsewhere: m-0" in told
        eventually(lambda: hosts.ready("m-0").host == other)
        told = say(hosts, "why", drained)
        assert "new disk" in told
        assert "engines     none" in told
        assert f"{drained} is drained by" in say(hosts, "status")

        say(hosts, "undrain-host", drained)
        say(hosts, "move", "m-0", drained)
        eventually(lambda: read_wishes(hosts.store)["m-0"].spec.host == drained)
        assert f"to host {drained} by" in say(hosts, "why", "m-0")
        told = say(hosts, "drain-host", drained)
        assert "go elsewhere: none" in told
        assert f"m-0 was moved to {drained} and stays there" in told
        say(hosts, "undrain-host", drained)
        say(hosts, "move", "m-0", "--anywhere")
        assert hosts.run("move", "m-0", "c").returncode == 1


def say(hosts: Hosts, *arguments: str) -> str:
    done = hosts.run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout
