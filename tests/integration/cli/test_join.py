"""A machine becomes a host of a fleet by one line."""

import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from modelserver.fleet.key import KEY_VARIABLE
from modelserver.store.fleet.hosts import read_hosts
from modelserver.store.fleet.workers import read_workers
from tests.support.fleets import CLI, Hosts, model, open_hosts
from tests.support.processes import ROOT, ValkeyProcess, eventually

#: Installing nothing, a join takes a few seconds on a quiet machine.
JOIN_SECONDS = 240


@pytest.fixture
def hosts(tmp_path: Path, valkey: ValkeyProcess) -> Iterator[Hosts]:
    with open_hosts(tmp_path, valkey.url, model("m", hosts=["new"])) as hosts:
        yield hosts


def on_new_host(
    hosts: Hosts, *command: str, key: str, cwd: Path = ROOT
) -> tuple[int, str]:
    """A command on a machine that has neither a fleet file nor more than the key."""
    known = hosts.environment("new") | {KEY_VARIABLE: key}
    del known["MODELSERVER_FLEET"], known["MODELSERVER_HOST"]
    done = subprocess.run(
        [*CLI, *command],
        cwd=cwd,
        env={**os.environ, **known},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=JOIN_SECONDS,
    )
    return done.returncode, done.stdout


def test_a_host_joins_by_one_line_and_leaves(
    hosts: Hosts, valkey: ValkeyProcess, tmp_path: Path
):
    join = ("join", valkey.url, "--name", "new", "--wait", "120")
    hosts.apply(model("m", hosts=["new"]), options=("--wait", "0"))

    code, said = on_new_host(hosts, *join, key="")
    assert code == 1, said
    assert "problem fleet key" in said
    assert not read_hosts(hosts.store)

    # Two at once are one: what the second one starts gives way to what runs.
    with ThreadPoolExecutor() as pool:
        one_line = partial(on_new_host, hosts, *join, key=hosts.fleet_key)
        for done in [pool.submit(one_line) for _ in range(2)]:
            code, said = done.result()
            assert code == 0, said
            assert "new is in the fleet, and its engines serve" in said
    assert len(read_workers(hosts.store)) == 1
    before = hosts.ready("m-0")
    assert hosts.complete.delay("hi", max_tokens=2).get(timeout=60)

    # What concerns this host knows which one it is, in any folder without a fleet file.
    (elsewhere := tmp_path / "elsewhere").mkdir()
    here = partial(on_new_host, hosts, key=hosts.fleet_key, cwd=elsewhere)
    for part in ("launcher", "worker"):
        code, said = here("alive", part)
        assert code == 0, said
    code, said = here("doctor")
    assert code == 0, said
    assert "which this host has joined as new" in said
    assert "run/new/" in said

    code, said = on_new_host(hosts, *join, key=hosts.fleet_key)
    assert code == 0, said
    assert "new has joined already" in said
    after = hosts.ready("m-0")
    assert (after.pid, after.incarnation) == (before.pid, before.incarnation)

    code, said = on_new_host(hosts, *join[:2], "--name", "other", key=hosts.fleet_key)
    assert code == 2, said
    assert "joined as new; run `modelserver leave` first" in said

    # As one is that goes by a password of before.
    (launcher,) = (host.pid for host in read_hosts(hosts.store))
    os.kill(launcher, signal.SIGSTOP)
    eventually(lambda: not read_hosts(hosts.store))
    code, said = on_new_host(hosts, *join, key=hosts.fleet_key)
    os.kill(launcher, signal.SIGCONT)
    assert code == 1, said
    assert "its launcher does not report; see " in said
    assert "run `modelserver leave`, then join again" in said
    assert "engine m-0 is" not in said

    code, said = on_new_host(hosts, "leave", key=hosts.fleet_key)
    assert code == 0, said
    eventually(lambda: not read_hosts(hosts.store))
