"""An engine that moves to and fro between two launchers, which go on to obey."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelserver.store.fleet.control import hold_control, report_steered, write_wishes
from modelserver.values import EngineSpec, Wish
from tests.support.fleets import Hosts, make_hosts, model
from tests.support.processes import ValkeyProcess, eventually

#: How often the engine moves; the pure part is tried oftener.
MOVES = 4


@pytest.fixture
def hosts(tmp_path: Path, valkey: ValkeyProcess) -> Iterator[Hosts]:
    hosts = make_hosts(tmp_path, valkey.url, model("m"))
    yield hosts
    hosts.close()


def wish(hosts: Hosts, engine: str, host: str) -> None:
    """Be control: want the engine there, or nowhere."""
    wanted = Wish(EngineSpec(engine, "m", host)) if host else None
    with hold_control(hosts.store, "test", 5) as token:
        report_steered(hosts.store, "test")
        assert write_wishes(hosts.store, token, {engine: wanted})


def test_launchers_obey_after_an_engine_moved_to_and_fro(hosts: Hosts):
    for host in ("a", "b"):
        hosts.launch(host)
    for move in range(MOVES):
        host = ("a", "b")[move % 2]
        wish(hosts, "m-0", host)
        eventually(lambda host=host: hosts.ready("m-0").host == host)
    for host in ("a", "b"):
        wish(hosts, "m-1", host)
        eventually(lambda host=host: hosts.ready("m-1").host == host)
    wish(hosts, "m-0", "")
    wish(hosts, "m-1", "")
    eventually(lambda: not hosts.engine("m-0") and not hosts.engine("m-1"))
    assert "the store lost its data" not in hosts.said()
