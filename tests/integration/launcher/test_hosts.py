"""Several hosts with one server: hosts go and come back."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from modelserver.store.fleet.engines import read_engines
from modelserver.store.fleet.hosts import read_hosts
from modelserver.values import EngineReport
from tests.support.fleets import Hosts, model, open_hosts
from tests.support.processes import ValkeyProcess, carriers, eventually

NAMES = ("m-0", "m-1", "m-2")


@pytest.fixture
def hosts(tmp_path: Path, valkey: ValkeyProcess) -> Iterator[Hosts]:
    extra = "host_grace_seconds = 2"
    m = model("m", min_engines=3)
    with open_hosts(tmp_path, valkey.url, m, extra=extra) as hosts:
        for host in ("a", "b", "c"):
            hosts.launch(host)
        eventually(lambda: len(read_hosts(hosts.store)) == 3)
        yield hosts


def settled(hosts: Hosts) -> dict[str, EngineReport] | None:
    """All engines, if each serves on a live host."""
    live = {host.name for host in read_hosts(hosts.store)}
    engines = read_engines(hosts.store)
    good = [e for e in engines.values() if e.serves and e.host in live]
    return engines if len(good) == len(engines) == len(NAMES) else None


def engine_processes(hosts: Hosts) -> int:
    """Test engines that run, whoever started them."""
    number = 0
    for process in carriers("LC_MODELSERVER_TEST_MARK", str(hosts.folder)):
        with suppress(psutil.Error):  # It may end just now.
            number += "tests.engine.server" in process.cmdline()
    return number


def test_engines_of_a_lost_host_appear_elsewhere_and_stay_there(hosts: Hosts):
    before = eventually(lambda: settled(hosts))
    lost = before["m-0"].host
    hosts.kill(lost)
    gone = lambda: lost not in {h.name for h in read_hosts(hosts.store)}  # noqa: E731
    eventually(gone)
    moved = eventually(lambda: settled(hosts))
    assert lost not in {engine.host for engine in moved.values()}
    for name, engine in moved.items():
        if before[name].host != lost:
            assert (engine.pid, engine.host) == (before[name].pid, before[name].host)

    hosts.launch(lost)
    eventually(lambda: lost in {h.name for h in read_hosts(hosts.store)})
    returned = hosts.store.now()
    eventually(lambda: hosts.store.now() > returned + 6)
    after = eventually(lambda: settled(hosts))
    assert {n: (e.pid, e.host) for n, e in after.items()} == {
        n: (e.pid, e.host) for n, e in moved.items()
    }
    assert engine_processes(hosts) == len(NAMES)


def test_engines_that_outlived_their_launcher_are_not_doubled(hosts: Hosts):
    before = eventually(lambda: settled(hosts))
    lost = before["m-0"].host
    hosts.launchers[lost].process.kill()
    hosts.launchers[lost].wait()
    gone = lambda: lost not in {h.name for h in read_hosts(hosts.store)}  # noqa: E731
    eventually(gone)
    # All of them: what is not ready elsewhere yet may stay where it is.
    eventually(lambda: settled(hosts))
    hosts.launch(lost)
    eventually(lambda: settled(hosts) and engine_processes(hosts) == len(NAMES))
    spread = Counter(engine.host for engine in read_engines(hosts.store).values())
    assert lost not in spread
