"""An engine that takes two hosts, as two launchers here: all of it or nothing."""

from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from modelserver.cli.why_host import describe_host
from modelserver.control.applied_fleet import compose, publish, read
from modelserver.operations.host_checks import check_exposed
from modelserver.operations.status import Status, read_status
from modelserver.policy.orders import DRAIN_HOST
from modelserver.store.fleet.hosts import read_hosts
from modelserver.store.fleet.orders import give, take_back
from modelserver.values import EngineReport, NodeReport, Order
from tests.support.fleets import Hosts, model, open_hosts
from tests.support.processes import ValkeyProcess, carriers, eventually

#: Launchers may take long to start.
GRACE = "host_grace_seconds = 300"
NODES = ("--node", "{node}", "--nodes", "{nodes}", "--meeting", "{meeting}")
MODEL = model("m", *NODES, nodes=2, drain_seconds=3)
LISTED = "".join(
    f'[[hosts]]\nname = "{name}"\naddress = "127.0.0.1"\n' for name in ("a", "b", "c")
)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Three hosts; each test begins and ends with an engine that serves."""
    folder = tmp_path_factory.mktemp("nodes")
    valkey = ValkeyProcess(folder).start()
    with open_hosts(folder, valkey.url, MODEL, extra=f"{GRACE}\n{LISTED}") as hosts:
        for host in ("a", "b", "c"):
            hosts.launch(host)
        yield hosts
    valkey.stop()


def node_of(engine: EngineReport) -> NodeReport:
    (node,) = engine.followers
    return node


def serving(hosts: Hosts, incarnation: int = 0) -> EngineReport:
    """The engine once it serves, with its other node."""

    def there() -> EngineReport | None:
        engine = hosts.engine("m-0")
        if not engine or not engine.serves or engine.incarnation < incarnation:
            return None
        # It may serve before its other node or that one's process is reported.
        pids = [each.pid for each in engine.followers]
        return engine if pids and all(pids) else None

    return eventually(there, 90)


def processes(hosts: Hosts) -> set[int]:
    found = set()
    for process in carriers("LC_MODELSERVER_TEST_MARK", str(hosts.folder)):
        with suppress(psutil.Error):  # It may end just now.
            if "tests.engine.server" in process.cmdline():
                found.add(process.pid)
    return found


def nothing_else_runs(hosts: Hosts, engine: EngineReport) -> bool:
    """Whether its two nodes are all; a launcher may still be at the end of others."""
    assert processes(hosts) == {engine.pid, node_of(engine).pid}
    return True


def test_a_node_that_dies_ends_the_engine_which_starts_anew_as_a_whole(hosts: Hosts):
    first = serving(hosts)
    assert first.host != node_of(first).host
    eventually(lambda: nothing_else_runs(hosts, first))
    psutil.Process(node_of(first).pid).kill()
    second = serving(hosts, first.incarnation + 1)
    assert node_of(second).incarnation == second.incarnation
    eventually(lambda: nothing_else_runs(hosts, second))
    assert not {second.pid, node_of(second).pid} & {first.pid, node_of(first).pid}


def test_people_see_where_its_nodes_are(hosts: Hosts):
    there = node_of(serving(hosts)).host
    told = f"node 1, READY on host {there}, pid "

    def seen() -> Status | None:
        status = read_status(hosts.store, hosts.settings)
        of_host = dict(describe_host(status, there, ()))
        return status if of_host["m-0"].startswith(told) else None

    status = eventually(seen)
    (engine,) = status.engines
    assert engine.hosts == (engine.host, there)
    assert check_exposed("m-0", "10.0.0.7 port 21007", status).is_note
    assert check_exposed("m-1", "10.0.0.7 port 21007", status).is_problem


def test_launchers_adopt_both_nodes(hosts: Hosts):
    before = serving(hosts)
    for host in (node_of(before).host, before.host):
        hosts.launchers[host].process.kill()
        hosts.launchers[host].wait()
        pid = hosts.launch(host).process.pid
        eventually(lambda pid=pid: pid in {e.pid for e in read_hosts(hosts.store)})
    eventually(lambda: hosts.said().count("adopted") >= 2)
    after = serving(hosts)
    assert (after.incarnation, after.pid) == (before.incarnation, before.pid)
    assert node_of(after).pid == node_of(before).pid
    eventually(lambda: nothing_else_runs(hosts, after))


def test_a_drained_host_of_a_node_gives_the_engine_away(hosts: Hosts):
    before = serving(hosts)
    drained = node_of(before).host
    give(hosts.store, Order(DRAIN_HOST, drained))
    after = serving(hosts, before.incarnation + 1)
    assert drained not in {after.host, node_of(after).host}
    eventually(lambda: nothing_else_runs(hosts, after))
    assert take_back(hosts.store, DRAIN_HOST, drained)


def forget_silent_hosts_soon(hosts: Hosts) -> None:
    hosts.head = hosts.head.replace(GRACE, "host_grace_seconds = 1")
    hosts.write(MODEL)
    settings = hosts.settings
    before, key = read(hosts.store, settings), settings.fleet_key
    applied = compose(settings.fleet, before, hosts.store.now(), key=key)
    assert publish(hosts.store, applied, before)


def test_an_engine_that_lost_its_leader_serves_on_other_hosts(hosts: Hosts):
    before = serving(hosts)
    forget_silent_hosts_soon(hosts)
    hosts.kill(before.host)
    after = serving(hosts, before.incarnation + 1)
    assert before.host not in {after.host, node_of(after).host}
    eventually(lambda: nothing_else_runs(hosts, after))
