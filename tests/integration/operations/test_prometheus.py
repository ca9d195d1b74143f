"""``modelserver metrics``, scraped as Prometheus does."""

import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from modelserver.control.alerts import raise_alert
from modelserver.measured import Metrics
from modelserver.operations.prometheus import FleetCollector
from modelserver.store.fleet.measurements import report_metrics
from tests.support.fleet_records import Records
from tests.support.fleets import CLI, Hosts, model, open_hosts
from tests.support.processes import ROOT, ValkeyProcess, end, eventually
from tests.support.workers import answers

#: A metric's name and its labels.
Name = tuple[str, frozenset[tuple[str, str]]]


def named(name: str, **labels: str) -> Name:
    return name, frozenset(labels.items())


@contextmanager
def served(hosts: Hosts) -> Iterator[str]:
    """The exporter as a process; the address of its page."""
    process = subprocess.Popen(
        [*CLI, "metrics", "--port", "0"],
        cwd=ROOT,
        env={**os.environ, **hosts.environment()},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        end(process)
        process.stdout.close()


def faults_of(url: str) -> list[str]:
    """What ``promtool check metrics`` would say, by the rules that it checks."""
    with urllib.request.urlopen(url, timeout=10) as reply:
        page = reply.read().decode()
    found = []
    for family in text_string_to_metric_families(page):
        is_kept = family.type in ("histogram", "summary")
        found += [f"{family.name} has no help"] * (not family.documentation)
        if family.name.endswith(("_count", "_sum", "_bucket")) and not is_kept:
            found.append(f"{family.name} has a reserved ending")
        for sample in family.samples:
            if {"quantile", "le"} & sample.labels.keys() and not is_kept:
                found.append(f"{sample.name} has a reserved label")
            if family.type == "counter" and not sample.name.endswith("_total"):
                found.append(f"{sample.name} is a counter without _total")
            if family.type == "gauge" and sample.name.endswith("_total"):
                found.append(f"{sample.name} is a gauge with _total")
    return found


def scrape(url: str) -> dict[Name, float]:
    with urllib.request.urlopen(url, timeout=30) as reply:
        page = reply.read().decode()
    return {
        named(sample.name, **sample.labels): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_prometheus_reads_engines_queues_answers_and_alerts(
    valkey: ValkeyProcess, tmp_path: Path
):
    with open_hosts(tmp_path, valkey.url, model("m", min_engines=1)) as hosts:
        hosts.launch("a")
        hosts.worker("a")
        hosts.ready("m-0")
        sent = [hosts.complete.delay(f"p {n}", max_tokens=8) for n in range(5)]
        assert len(answers(sent, within=30)) == 5
        raise_alert(hosts.store, hosts.settings, "m-0", "slow", hosts.store.now())
        with served(hosts) as url:
            engine = {"engine": "m-0", "model": "m", "host": "a"}
            total = named("modelserver_engine_requests_total", **engine)
            cut_off = named("modelserver_answers_cut_off_total", model="m")

            def whole() -> dict[Name, float]:
                """A page that was not read in the midst of what is counted."""
                page = scrape(url)
                return page if page.get(total) == page.get(cut_off) == 5 else {}

            page = eventually(whole)
            tokens = named("modelserver_engine_completion_tokens_total", **engine)
            took = "modelserver_engine_request_seconds"
            assert page[tokens] == 40
            # What is counted of the model stays where its engine goes.
            hosts.store.client.delete(hosts.store.keys.counters("m-0"))
            assert scrape(url)[cut_off] == 5
            assert total not in scrape(url) or not scrape(url)[total]
            assert page[named(f"{took}_bucket", **engine, le="+Inf")] == 5
            assert page[named(f"{took}_count", **engine)] == 5
            assert page[named(f"{took}_sum", **engine)] > 0
            waited = "modelserver_queue_wait_seconds"
            assert page[named(f"{waited}_bucket", model="m", le="+Inf")] == 5
            assert page[named(f"{waited}_sum", model="m")] < 30
            assert page[named("modelserver_queue_oldest_seconds", queue_name="m")] == 0
            assert page[named("modelserver_redis_memory_bytes", kind="used")] > 0
            assert any(name == "modelserver_build_info" for name, _ in page)
            assert faults_of(url) == []
            assert page[named("modelserver_engine_state", **engine, state="READY")] == 1
            assert page[named("celery_queue_length", queue_name="m")] == 0
            assert page[named("modelserver_answers_total", outcome="stored")] >= 5
            assert page[named("modelserver_alerts_open")] == 1
            assert page[named("modelserver_alerts_total", event="raised")] == 1
            assert page[named("modelserver_control_look_age_seconds")] < 30
            assert page[named("modelserver_up")] == 1


def test_a_lost_host_is_down_and_its_last_figures_are_not_told(
    valkey: ValkeyProcess, tmp_path: Path
):
    records = Records.open(tmp_path, valkey.url, ["m", "idle"])
    records.write(2)
    store, keys = records.store, records.store.keys
    report_metrics(store, {"m-0": Metrics(waiting=7, kv_use=0.9)})
    registry = CollectorRegistry()
    registry.register(FleetCollector(records.settings))
    engine = {"engine": "m-0", "model": "m", "host": "host-0"}

    def told(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"modelserver_{name}", labels)

    assert told("engine_waiting", **engine) == 7
    assert told("host_up", host="host-0") == 1
    store.client.delete(keys.host("host-0"))
    assert told("host_up", host="host-0") == 0
    assert told("engine_state", **engine, state="LOST") == 1
    assert told("engine_waiting", **engine) is None
    assert told("engine_kv_use", **engine) is None
    assert told("engine_hung_seconds", **engine) is None
    store.client.close()


def test_a_server_that_is_away_is_told_and_awaited(tmp_path: Path):
    (tmp_path / "valkey").mkdir()
    server = ValkeyProcess(tmp_path / "valkey").start()
    with open_hosts(tmp_path, server.url, model("m")) as hosts, served(hosts) as url:
        assert scrape(url)[named("modelserver_up")] == 1
        server.stop()
        assert scrape(url) == {named("modelserver_up"): 0}
        server.start()
        eventually(lambda: scrape(url)[named("modelserver_up")] == 1)
    server.stop()


def test_a_port_that_is_taken_is_named(valkey: ValkeyProcess, tmp_path: Path):
    with open_hosts(tmp_path, valkey.url, model("m")) as hosts, served(hosts) as url:
        port = url.rpartition(":")[2].partition("/")[0]
        done = hosts.run("metrics", "--port", port)
        assert done.returncode == 1
        assert f"cannot listen at 127.0.0.1:{port}" in done.stderr
        assert "--port" in done.stderr
