"""A changed fleet file, applied to a fleet that runs."""

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelserver.control.applied_fleet import compose, publish, read
from modelserver.errors import UnknownModelError
from modelserver.store.fleet.alerts import open_alerts
from modelserver.store.fleet.applied import read_applied_fleet
from modelserver.store.fleet.engines import read_engines
from modelserver.values import EngineState
from tests.support.fleets import Hosts, model, open_hosts
from tests.support.launchers import fault
from tests.support.processes import ValkeyProcess, eventually, lives

SLOW = ("--latency", "0.3")


@pytest.fixture
def hosts(tmp_path: Path, valkey: ValkeyProcess) -> Iterator[Hosts]:
    with open_hosts(tmp_path, valkey.url, model("m")) as hosts:
        yield hosts


def test_a_new_model_is_served_and_the_others_are_left_alone(hosts: Hosts):
    hosts.launch("a")
    hosts.worker("a")
    before = hosts.ready("m-0")
    assert hosts.complete.delay("hi", max_tokens=2).get(timeout=60)
    said = hosts.apply(model("m"), model("n"))
    assert "model n: starts n-0" in said
    assert "In all: start 1 engine." in said
    assert "Version 2 is in force." in said
    assert "The fleet is as the file says after" in said
    hosts.ready("n-0")
    after = hosts.ready("m-0")
    assert (after.pid, after.incarnation) == (before.pid, before.incarnation)
    eventually(lambda: hosts.complete.models().entry("n"))
    assert hosts.complete.delay("hi", model="n", max_tokens=2).get(timeout=60)
    status = json.loads(hosts.run("status", "--json").stdout)
    assert status["fleet"]["version"] == 2
    assert "nothing to do" in hosts.apply(model("m"), model("n"))


def test_a_removed_model_finishes_what_it_has_and_keeps_what_waits(hosts: Hosts):
    slow = model("m", *SLOW, max_running=4)
    hosts.apply(slow, model("n"))
    hosts.launch("a")
    hosts.worker("a")
    hosts.ready("m-0")
    results = [
        hosts.complete.delay(f"{n}", model="m", max_tokens=2) for n in range(600)
    ]
    eventually(lambda: any(result.ready() for result in results))
    # Or it would be done with them by the time that two commands have started.
    fault(hosts.ready("m-0"), slow=10)

    # Much of it waits until the second one of these is over.
    hosts.write(model("n"))
    refused = hosts.run("apply", "--yes")
    assert refused.returncode == 1
    assert "wait in the queue of m, which is to go" in refused.stderr
    assert "--force" in refused.stderr
    assert read(hosts.store, hosts.settings).version == 1

    hosts.apply(model("n"), options=("--force",))
    assert hosts.engine("m-0") is None
    (entry,) = [
        entry
        for entry in json.loads(hosts.run("status", "--json").stdout)["models"]
        if entry["name"] == "m"
    ]
    waiting = entry["queue"]["backlog"]
    answered = sum(result.ready() for result in results)
    assert 0 < answered < len(results)
    assert answered + waiting == len(results)
    assert "left the fleet" in entry["waiting_for"]

    def refuses() -> bool:
        try:
            hosts.complete.delay("late", model="m")
        except UnknownModelError as error:
            return 'no model "m"' in str(error)
        return False  # The client has not read of it yet.

    eventually(refuses)
    hosts.apply(model("m"), model("n"))
    assert all(result.get(timeout=60) for result in results)


def test_engines_restart_one_after_the_other_and_no_request_is_lost(hosts: Hosts):
    hosts.apply(model("m", *SLOW, min_engines=2))
    hosts.launch("a")
    hosts.worker("a")
    pids = {hosts.ready(name).pid for name in ("m-0", "m-1")}
    serving: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            serving.append(sum(e.serves for e in read_engines(hosts.store).values()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    results = [hosts.complete.delay(f"{n}", max_tokens=2) for n in range(200)]
    said = hosts.apply(model("m", "--latency", "0.2", min_engines=2))
    over.set()
    watcher.join()
    assert 'restarts m-0, m-1 because command changed from ["...", "0.3"]' in said
    assert min(serving) == 1
    assert pids.isdisjoint(hosts.ready(name, 2).pid for name in ("m-0", "m-1"))
    assert all(result.get(timeout=60) for result in results)
    reasons = [
        fields["reason"]
        for _, fields in hosts.store.client.xrange(hosts.store.keys.decisions)
        if fields["action"] == "relaunch"
    ]
    assert len(reasons) == 2
    assert all(reason.startswith("command changed from") for reason in reasons)


def test_sampling_and_limits_change_without_a_restart(hosts: Hosts):
    hosts.apply(model("m", sampling={"max_tokens": 2}))
    hosts.launch("a")
    hosts.worker("a")
    before = hosts.ready("m-0")

    def tokens() -> int:
        answer = hosts.complete.delay("hi", raw=True).get(timeout=60)
        return int(answer["usage"]["completion_tokens"])

    assert tokens() == 2
    said = hosts.apply(model("m", sampling={"max_tokens": 5}, max_running=7))
    assert "no engine starts, stops or restarts" in said
    eventually(lambda: tokens() == 5)
    after = eventually(lambda: hosts.ready("m-0").limit == 7 and hosts.ready("m-0"))
    assert (after.pid, after.incarnation) == (before.pid, before.incarnation)


def test_an_invalid_file_is_refused_with_its_key_and_changes_nothing(hosts: Hosts):
    hosts.apply(model("m"), options=("--wait", "0"))
    path = hosts.write(model("m", contxt_length=5))
    done = hosts.run("apply", "--yes")
    assert done.returncode == 2
    assert f"{path}: the fleet file is not valid" in done.stderr
    assert 'contxt_length: is not a key; did you mean "context_length"?' in done.stderr
    hosts.write(model("m"))
    assert read(hosts.store, hosts.settings).version == 1


def test_nothing_is_applied_without_a_word(hosts: Hosts):
    hosts.write(model("m"), model("deaf", command=["sleep", "100"], min_engines=0))
    done = hosts.run("apply", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("{port}") == 1
    assert "warning: model deaf: its command does not say {port}" in done.stdout
    assert "model m: starts m-0" in done.stdout
    done = hosts.run("apply")
    assert done.returncode == 1
    assert "say --yes" in done.stderr
    assert read_applied_fleet(hosts.store) == ""


def test_of_two_operators_the_slower_one_overwrites_nothing(hosts: Hosts):
    hosts.apply(model("m"), options=("--wait", "0"))
    seen = read(hosts.store, hosts.settings)
    hosts.apply(model("m"), model("n"), options=("--wait", "0"))
    late = compose(hosts.settings.fleet, seen, hosts.store.now())
    assert not publish(hosts.store, late, seen)
    now = read(hosts.store, hosts.settings)
    assert now
    assert [entry.name for entry in now.fleet.models] == ["m", "n"]


def test_an_engine_that_gave_up_gets_a_new_life_by_a_changed_section(hosts: Hosts):
    hosts.apply(model("m", "--no-such-option"), options=("--wait", "0"))
    hosts.launch("a")

    def fatal() -> bool:
        engine = hosts.engine("m-0")
        return engine is not None and engine.state is EngineState.FATAL

    eventually(fatal)
    hosts.apply(model("m"))
    hosts.ready("m-0")


def test_a_section_that_no_engine_starts_with_stops_at_the_first(hosts: Hosts):
    hosts.apply(model("m", min_engines=2))
    hosts.launch("a")
    hosts.ready("m-0")
    other = hosts.ready("m-1")
    hosts.write(model("m", "--no-such-option", min_engines=2))
    done = hosts.run("apply", "--yes", "--wait", "90")
    assert done.returncode == 1
    assert "m-0 is FATAL" in done.stderr
    assert "m-1 is still to be restarted" in done.stderr
    assert hosts.ready("m-1").pid == other.pid
    hosts.apply(model("m", min_engines=2))
    hosts.ready("m-0")
    assert hosts.ready("m-1").pid == other.pid


def test_a_launcher_with_another_file_goes_by_what_was_applied(hosts: Hosts):
    hosts.apply(model("m"), options=("--wait", "0"))
    hosts.write(model("m", "--latency", "1"), model("x"), file="other.toml")
    hosts.launch("a", "other.toml")
    hosts.ready("m-0")
    assert "other.toml differs from the fleet in force (version 1" in hosts.said()
    assert "command changed from" in hosts.said()
    assert "model x: added" in hosts.said()
    assert "`modelserver apply`" in hosts.said()
    assert hosts.engine("x-0") is None


def test_a_store_that_lost_its_data_gets_the_fleet_again(
    hosts: Hosts, valkey: ValkeyProcess
):
    hosts.apply(model("m"), options=("--wait", "0"))
    hosts.launch("a")
    before = hosts.ready("m-0")
    hosts.apply(model("m", sampling={"n": 1}))
    valkey.stop()
    eventually(lambda: "the engines go on without it" in hosts.said())
    valkey.start()

    def back() -> bool:
        applied = read(hosts.store, hosts.settings)
        return applied is not None and applied.version == 2

    eventually(back)
    assert hosts.ready("m-0").pid == before.pid


def test_an_adopted_engine_is_restarted_for_what_changed_meanwhile(hosts: Hosts):
    launcher = hosts.launch("a")
    before = hosts.ready("m-0")
    launcher.signal(signal.SIGQUIT)
    launcher.wait()
    hosts.apply(model("m", "--latency", "0.1"), options=("--wait", "0"))
    assert lives(before.pid)
    hosts.launch("a")
    hosts.ready("m-0", incarnation=2)
    assert "adopted" in hosts.said()


def test_a_secret_is_taken_from_each_hosts_own_file(hosts: Hosts):
    secret = model("m", environment={"HF_TOKEN": "hf_secret"})
    hosts.write(model("m"), file="poor.toml")
    hosts.apply(secret, options=("--wait", "0"))
    assert "hf_secret" not in read_applied_fleet(hosts.store)
    hosts.launch("poor", "poor.toml")

    def reason() -> str:
        engine = hosts.engine("m-0")
        return engine.reason if engine else ""

    eventually(lambda: "environment variable HF_TOKEN" in reason())
    assert str(hosts.folder / "poor.toml") in reason()
    hosts.write(secret, file="poor.toml")
    assert hosts.run("relaunch", "m-0").returncode == 0
    hosts.ready("m-0")


def test_hosts_that_are_left_out_lose_their_engines_and_unknown_ones_are_named(
    hosts: Hosts,
):
    for host in ("a", "b"):
        hosts.launch(host)
    there = hosts.ready("m-0").host
    other = {"a": "b", "b": "a"}[there]
    hosts.write(f'[[hosts]]\nname = "{other}x"\n', model("m"))
    shown = hosts.run("apply", "--dry-run").stdout
    assert f'warning: no launcher of host "{other}x" reports' in shown
    hosts.write(model("m", command=["serve", "{prot}"]))
    refused = hosts.run("apply", "--dry-run")
    assert refused.returncode != 0
    assert "{prot}" in refused.stderr
    said = hosts.apply(f'[[hosts]]\nname = "{other}"\n', model("m"))
    assert f"engine m-0: leaves host {there}, which is not listed" in said
    assert "In all: move 1 engine." in said
    assert "warning" not in said
    assert "The fleet is as the file says after" in said
    assert hosts.ready("m-0").host == other


def test_a_fleet_that_is_not_signed_or_old_runs_nothing(hosts: Hosts):
    hosts.apply(model("m"), options=("--wait", "0"))
    old = read_applied_fleet(hosts.store)
    hosts.apply(model("m", max_running=32), options=("--wait", "0"))
    launcher, worker = hosts.launch("a"), hosts.worker("a")
    before = hosts.ready("m-0")
    ran = hosts.folder / "ran"
    forged = json.loads(read_applied_fleet(hosts.store))
    forged |= {"version": 3, "by": "eve@x"}
    forged["models"][0] |= {"name": "eve", "command": ["touch", str(ran)]}
    hosts.store.client.set(hosts.store.keys.fleet, json.dumps(forged))
    said = "version 3 of the fleet, applied by eve@x, is not signed with the key in"
    eventually(lambda: said in launcher.said() and said in worker.said())
    eventually(lambda: [a.kind for a in open_alerts(hosts.store)] == ["refused"])
    assert "this host keeps version 2" in launcher.said()

    hosts.store.client.set(hosts.store.keys.fleet, old)
    said = "is older than version 2, which this host has obeyed"
    # The launcher writes its own again.
    eventually(lambda: json.loads(read_applied_fleet(hosts.store))["version"] == 2)
    eventually(lambda: said in launcher.said() or said in worker.said())

    hosts.store.client.set(hosts.store.keys.fleet, json.dumps(forged))
    applied = hosts.apply(model("m"), options=("--wait", "0"))
    assert "takes the place of a fleet that this host refuses: version 3" in applied
    assert "Version 4 is in force." in applied
    eventually(lambda: not open_alerts(hosts.store))
    assert hosts.ready("m-0").pid == before.pid
    assert not ran.exists()


def test_the_first_apply_makes_a_key_and_a_host_without_it_names_the_remedy(
    hosts: Hosts,
):
    hosts.fleet_key = ""
    said = hosts.apply(model("m"), options=("--wait", "0"))
    assert "is signed from now on, with a key that this host gets" in said
    key = hosts.settings.fleet_key
    assert (key.file.stat().st_mode & 0o777, key.last_version()) == (0o600, 1)
    launcher = hosts.launch("a")
    assert launcher.wait() == 2
    assert "is signed, and this host has no key; copy fleet.key from" in launcher.said()
    assert key.read() not in read_applied_fleet(hosts.store)
