"""Launchers that are silent for a while, beside a host with room for their engines."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from launcher.host.unowned import find_unowned
from modelserver.store.fleet.control import read_wishes
from modelserver.store.fleet.hosts import read_hosts
from tests.support.fleets import Hosts, model, open_hosts
from tests.support.processes import ValkeyProcess, eventually


@contextmanager
def two_hosts(folder: Path, url: str, extra: str = "") -> Iterator[Hosts]:
    """An engine on the first host, and a second where it would take long to start."""
    slow = 'case "$MODELSERVER_ENGINE_RUN" in */b/*) sleep 60;; esac; exec "$@"'
    server = [sys.executable, "-m", "tests.engine.server", "--port", "{port}"]
    m = model("m", command=["sh", "-c", slow, "sh", *server, "--model", "{model}"])
    with open_hosts(folder, url, m, extra=extra) as hosts:
        hosts.launch("a")
        hosts.ready("m-0")
        hosts.launch("b")
        eventually(lambda: live(hosts) == {"a", "b"})
        yield hosts


def live(hosts: Hosts) -> set[str]:
    return {host.name for host in read_hosts(hosts.store)}


def leave(hosts: Hosts) -> None:
    """End the first launcher as an upgrade does; wait until its lease is over."""
    hosts.launchers["a"].signal(signal.SIGQUIT)
    assert hosts.launchers["a"].wait() == 0
    eventually(lambda: live(hosts) == {"b"})


def test_an_engine_stays_while_its_launcher_is_restarted(
    tmp_path: Path, valkey: ValkeyProcess
):
    with two_hosts(tmp_path, valkey.url) as hosts:
        before = hosts.ready("m-0")
        leave(hosts)
        gone_at = hosts.store.now()
        eventually(lambda: hosts.store.now() > gone_at + 3)
        assert read_wishes(hosts.store)["m-0"].spec.host == "a"
        hosts.launch("a")
        eventually(lambda: live(hosts) == {"a", "b"})
        later = hosts.store.now() + 2
        eventually(lambda: hosts.ready("m-0").alive_at > later)
        after = hosts.ready("m-0")
        assert (after.pid, after.host) == (before.pid, "a")


def test_who_serves_stays_when_a_launcher_is_back_after_its_time(
    tmp_path: Path, valkey: ValkeyProcess
):
    with two_hosts(tmp_path, valkey.url, "host_grace_seconds = 1") as hosts:
        before = hosts.ready("m-0")
        leave(hosts)
        eventually(lambda: read_wishes(hosts.store)["m-0"].spec.host == "b")
        hosts.launch("a")
        eventually(lambda: read_wishes(hosts.store)["m-0"].spec.host == "a")
        later = hosts.store.now() + 3
        eventually(lambda: hosts.ready("m-0").alive_at > later)
        after = hosts.ready("m-0")
        assert (after.pid, after.host) == (before.pid, "a")


def test_engines_stay_where_they_are_when_the_store_comes_back_empty(
    tmp_path: Path, valkey: ValkeyProcess
):
    with two_hosts(tmp_path, valkey.url) as hosts:
        before = hosts.ready("m-0")
        # The launcher of the engine's host finds the store last.
        hosts.launchers["a"].process.send_signal(signal.SIGSTOP)
        valkey.stop()
        valkey.start()
        eventually(lambda: live(hosts) == {"b"})
        back_at = hosts.store.now()
        eventually(lambda: hosts.store.now() > back_at + 2)
        hosts.launchers["a"].process.send_signal(signal.SIGCONT)
        eventually(lambda: live(hosts) == {"a", "b"})
        eventually(lambda: read_wishes(hosts.store).get("m-0"))
        later = hosts.store.now() + 3
        eventually(lambda: hosts.ready("m-0").alive_at > later)
        after = hosts.ready("m-0")
        assert (after.pid, after.host, after.incarnation) == (
            *(before.pid, "a"),
            before.incarnation,
        )


def test_a_renamed_fleet_file_keeps_its_engines(tmp_path: Path, valkey: ValkeyProcess):
    with open_hosts(tmp_path, valkey.url, model("m")) as hosts:
        hosts.launch("a")
        before = hosts.ready("m-0")
        home = tmp_path / "a"
        assert find_unowned(home) == {}
        hosts.launchers["a"].signal(signal.SIGQUIT)
        assert hosts.launchers["a"].wait() == 0
        told = find_unowned(home)
        assert list(told) == [before.pid]
        assert "engine m-0 of" in told[before.pid]
        (tmp_path / "fleet.toml").rename(tmp_path / "renamed.toml")
        hosts.launch("a", "renamed.toml")
        later = hosts.store.now() + 2
        eventually(lambda: hosts.ready("m-0").alive_at > later)
        assert hosts.ready("m-0").pid == before.pid
        assert find_unowned(home) == {}
        # Its record is gone, as if another home had been used.
        next(home.glob("run/*/*/engines/*.json")).unlink()
        assert "no record in" in find_unowned(home)[before.pid]
