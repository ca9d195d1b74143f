"""Which model ``modelserver weights pull`` fetches."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleets import Hosts, model, open_hosts
from tests.support.processes import ValkeyProcess

#: Nothing is fetched of models that stand in a folder.
IN_FORCE = model("m", path="/weights/in-force")


@pytest.fixture
def hosts(tmp_path: Path, valkey: ValkeyProcess) -> Iterator[Hosts]:
    with open_hosts(tmp_path, valkey.url) as hosts:
        hosts.apply(IN_FORCE, options=("--wait", "0"))
        yield hosts


def test_a_host_that_has_joined_fetches_what_is_in_force(hosts: Hosts):
    hosts.write()  # As `join` writes it: where Redis is, and nothing more.
    done = hosts.run("weights", "pull", "m")
    assert "nothing to fetch: /weights/in-force" in done.stdout, done.stderr


def test_what_is_not_applied_yet_is_fetched_before(hosts: Hosts):
    hosts.write(model("m", path="/weights/next"))
    done = hosts.run("weights", "pull", "m")
    assert "nothing to fetch: /weights/next" in done.stdout, done.stderr


def test_a_model_that_is_nowhere_is_refused(hosts: Hosts):
    hosts.write(model("n"))
    done = hosts.run("weights", "pull", "k")
    assert done.returncode == 2
    assert 'no model "k" in the fleet in force (it has: m)' in done.stderr
    assert "fleet.toml (n); correct the name" in done.stderr


def test_a_fleet_that_this_host_may_not_obey_is_none(hosts: Hosts):
    hosts.write()
    hosts.fleet_key = ""
    done = hosts.run("weights", "pull", "m")
    assert done.returncode == 2
    assert "MODELSERVER_FLEET_KEY" in done.stderr
