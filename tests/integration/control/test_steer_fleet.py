"""Engines that are there only while somebody needs them, on real parts."""

from pathlib import Path

from modelserver.store.fleet.control import read_memory, read_steered, read_wishes
from modelserver.store.fleet.decisions import recent_decisions
from modelserver.store.fleet.engines import read_engines
from tests.support.fleets import Hosts, model, open_hosts
from tests.support.processes import ValkeyProcess, eventually
from tests.support.workers import DurableValkey, answers


def decided(hosts: Hosts, action: str) -> list[dict[str, str]]:
    decisions = recent_decisions(hosts.store)
    return [each for each in decisions if each["action"] == action]


def test_a_request_wakes_a_sleeping_model_and_idleness_ends_its_engine(
    valkey: ValkeyProcess, tmp_path: Path
):
    sleepy = model("m", "--latency", "0.1", min_engines=0, idle_seconds=2)
    with open_hosts(tmp_path, valkey.url, sleepy) as hosts:
        hosts.launch("a")
        hosts.worker("a")
        eventually(lambda: read_steered(hosts.store)[0] > 0)
        assert read_wishes(hosts.store) == {}
        assert hosts.engine("m-0") is None
        for _ in range(2):
            assert answers([hosts.complete.delay("wake up")], within=60)
            eventually(lambda: not read_engines(hosts.store))
            assert read_wishes(hosts.store) == {}
        assert [each["host"] for each in decided(hosts, "want")] == ["a"] * 2
        said = [each["reason"] for each in decided(hosts, "rebalance")]
        assert sum("is asked for and has no engine" in each for each in said) == 2
        assert sum("ends m-0: nobody asks for it" in each for each in said) == 2


def test_a_relaunch_survives_a_restart_of_the_server(tmp_path: Path):
    folder = tmp_path / "valkey"
    folder.mkdir()
    server = DurableValkey(folder).start()
    try:
        slow_start = model("m", "--latency", "0.1")
        with open_hosts(tmp_path, server.url, slow_start) as hosts:
            hosts.launch("a")
            hosts.worker("a")
            hosts.ready("m-0")
            before = read_memory(hosts.store)
            assert hosts.run("relaunch", "m-0").returncode == 0
            server.stop()
            server.start()
            hosts.ready("m-0", incarnation=2)
            assert answers([hosts.complete.delay("and now?")], within=60)
            after = hosts.engine("m-0")
            assert after
            assert after.incarnation == 2
            assert set(read_memory(hosts.store)) >= set(before)
    finally:
        server.stop()
