"""A real launcher, a real server, and engines that fail on demand."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from modelserver.store.fleet.applied import read_applied_fleet
from modelserver.store.fleet.control import report_steered
from modelserver.store.fleet.engines import read_engines
from modelserver.store.fleet.hosts import read_host
from modelserver.values import Cause, EngineState, Wish
from tests.support.launchers import (
    HOST,
    Site,
    fault,
    in_flight,
    open_site,
    stats,
)
from tests.support.processes import (
    LauncherProcess,
    ValkeyProcess,
    eventually,
    free_port,
    lives,
)


@pytest.fixture
def site(tmp_path: Path, valkey: ValkeyProcess) -> Iterator[Site]:
    with open_site(tmp_path, valkey) as site:
        yield site


def test_wanted_engine_becomes_ready_and_stays_alive(site: Site) -> None:
    launcher = site.launch()
    site.want("good")
    engine = site.reaches("good-0", EngineState.READY)
    assert (engine.model, engine.host, engine.incarnation) == ("good", HOST, 1)
    assert stats(engine)["pid"] == engine.pid
    assert engine.alive_at > 0
    assert Path(engine.log).read_text().count("listening") == 1
    host = read_host(site.store, HOST)
    assert host
    assert host.pid == launcher.process.pid
    assert "good-0 STARTING -> READY incarnation=1" in site.said()
    fleet = json.loads(read_applied_fleet(site.store))
    assert fleet["version"] == host.fleet == 1
    assert fleet["models"][0]["name"] == "good"
    later = engine.alive_at + 2
    eventually(lambda: site.reaches("good-0", EngineState.READY).alive_at > later)


def test_killed_engine_is_ready_again_and_its_old_tree_is_gone(site: Site) -> None:
    site.launch()
    site.want("good")
    old = site.reaches("good-0", EngineState.READY)
    child = stats(old)["child_pid"]
    os.kill(old.pid, signal.SIGKILL)
    new = site.reaches("good-0", EngineState.READY, incarnation=2)
    assert new.pid != old.pid
    assert not lives(child)
    assert not lives(old.pid)
    assert "killed by SIGKILL" in site.said()


def test_engine_that_never_gets_ready_backs_off(site: Site) -> None:
    site.launch()
    site.want("stuck")
    engine = site.reaches("stuck-0", EngineState.BACKOFF)
    assert "not ready after" in engine.reason
    assert "503" in engine.reason
    assert engine.log in engine.reason


def test_wrong_argument_is_fatal_at_once_with_the_remedy(site: Site) -> None:
    site.launch()
    site.want("wrong")
    engine = site.reaches("wrong-0", EngineState.FATAL)
    assert engine.incarnation == 1
    assert "unrecognized arguments" in engine.reason
    assert "fleet file" in engine.reason


def test_missing_engine_environment_is_fatal_and_names_the_command(site: Site) -> None:
    site.launch()
    site.want("bare")
    reason = site.reaches("bare-0", EngineState.FATAL).reason
    assert "modelserver engines install sglang-cpu" in reason


def test_model_that_this_host_does_not_know_is_fatal(site: Site) -> None:
    site.launch()
    site.want("secret")
    assert "fleet file" in site.reaches("secret-0", EngineState.FATAL).reason


def test_relaunch_wish_brings_the_next_incarnation_once(site: Site) -> None:
    site.launch()
    spec = site.want("good").spec
    old = site.reaches("good-0", EngineState.READY)
    site.wish("good-0", Wish(spec, relaunch=1, reason="slow ratio=3", cause=Cause.SLOW))
    new = site.reaches("good-0", EngineState.READY, incarnation=2)
    assert not lives(old.pid)
    later = new.alive_at + 2
    eventually(lambda: site.reaches("good-0", EngineState.READY).alive_at > later)
    assert site.engine("good-0").incarnation == 2  # type: ignore[union-attr]


def test_fatal_engine_starts_again_when_a_relaunch_is_asked_for(site: Site) -> None:
    site.launch()
    spec = site.want("wrong").spec
    site.reaches("wrong-0", EngineState.FATAL, incarnation=1)
    asked = Wish(spec, relaunch=1, reason="the operator asks", cause=Cause.ASKED)
    site.wish("wrong-0", asked)
    site.reaches("wrong-0", EngineState.FATAL, incarnation=2)


def test_engine_wanted_no_longer_ends_and_is_forgotten(site: Site) -> None:
    site.launch()
    site.want("good")
    engine = site.reaches("good-0", EngineState.READY)
    eventually(lambda: "launcher up" in site.said())
    site.wish("good-0", None)
    eventually(lambda: site.engine("good-0") is None)
    assert not lives(engine.pid)


def test_second_launcher_refuses_and_names_the_first(site: Site) -> None:
    first = site.launch()
    eventually(lambda: "launcher up" in site.said())
    second = site.launch()
    assert second.wait() == 2
    assert f"pid {first.process.pid}" in second.said()
    assert first.process.poll() is None


def test_launcher_of_another_home_refuses_the_same_host(
    site: Site, tmp_path: Path
) -> None:
    first = site.launch()
    eventually(lambda: read_host(site.store, HOST))
    home = {"MODELSERVER_HOME": str(tmp_path / "other")}
    second = LauncherProcess(tmp_path, {**site.environment, **home})
    assert second.wait() == 2
    assert f"pid {first.process.pid}" in second.said()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ended_launcher_leaves_no_process_and_no_report(
    site: Site, number: signal.Signals
) -> None:
    launcher = site.launch()
    site.want("good")
    site.want("other")
    site.reaches("good-0", EngineState.READY)
    site.reaches("other-0", EngineState.READY)
    launcher.signal(number)
    assert launcher.wait() == 0
    assert site.processes() == []
    assert read_engines(site.store) == {}
    assert read_host(site.store, HOST) is None


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGHUP])
def test_some_signals_leave_the_engines_to_the_next_launcher(
    site: Site, number: signal.Signals
) -> None:
    launcher = site.launch()
    site.want("good")
    before = site.reaches("good-0", EngineState.READY)
    launcher.signal(number)
    assert launcher.wait() == 0
    assert stats(before)["pid"] == before.pid
    site.launch()
    eventually(lambda: "STARTING -> READY" in site.said().partition("adopted")[2])
    assert site.reaches("good-0", EngineState.READY).pid == before.pid


def test_taken_port_keeps_the_engine_pending_and_names_the_holder(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        site.pin("good", port=port)
        site.launch()
        site.want("good", port=port)

        def told() -> bool:
            reason = site.reaches("good-0", EngineState.PENDING).reason
            assert f"port {port}" in reason
            assert f"pid {os.getpid()}" in reason
            return "fleet file" in reason

        eventually(told)
    engine = site.reaches("good-0", EngineState.READY)
    assert engine.url == f"http://127.0.0.1:{port}"


def test_external_engine_is_watched_and_never_started(site: Site) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    site.pin("other", port=port)
    site.pin("foreign", url=url)
    site.launch()
    site.want("other", port=port)
    assert site.reaches("other-0", EngineState.READY).url == url
    site.want("foreign", url=url)
    engine = site.reaches("foreign-0", EngineState.READY)
    assert (engine.url, engine.pid) == (url, 0)
    site.wish("other-0", None)
    lost = site.reaches("foreign-0", EngineState.STARTING)
    assert url in lost.reason


def test_engines_survive_a_store_that_comes_back_empty(
    site: Site, valkey: ValkeyProcess
) -> None:
    site.launch()
    wish = site.want("good")
    before = site.reaches("good-0", EngineState.READY)
    valkey.stop()
    eventually(lambda: "the engines go on without it" in site.said())
    valkey.start()
    report_steered(site.store, "test")
    later = before.alive_at + 8
    eventually(lambda: site.reaches("good-0", EngineState.READY).alive_at > later)
    again = site.reaches("good-0", EngineState.READY)
    assert (again.pid, again.incarnation) == (before.pid, before.incarnation)
    site.wish("good-0", replace(wish, relaunch=before.incarnation))
    anew = site.reaches("good-0", EngineState.READY, before.incarnation + 1)
    # The store had lost its count as well.
    assert anew.starts == before.starts + 1
    assert read_host(site.store, HOST)
    assert read_applied_fleet(site.store)
    assert site.said().count("the engines go on without it") == 1


def test_launcher_that_starts_while_the_store_is_away_watches_its_engines(
    site: Site, valkey: ValkeyProcess
) -> None:
    first = site.launch()
    wish = site.want("good")
    before = site.reaches("good-0", EngineState.READY)
    first.signal(signal.SIGKILL)
    first.wait()
    valkey.stop()
    launcher = site.launch()
    ready = "good-0 STARTING -> READY"
    eventually(lambda: ready in site.said().partition("watched")[2])
    valkey.start()
    # Control looks, and has not repeated its wishes yet.
    report_steered(site.store, "test")
    eventually(lambda: read_host(site.store, HOST))
    site.wish("good-0", wish)
    again = site.reaches("good-0", EngineState.READY)
    assert (again.pid, again.incarnation) == (before.pid, before.incarnation)
    assert launcher.process.poll() is None
    eventually(lambda: read_applied_fleet(site.store))
    site.want("other")
    site.reaches("other-0", EngineState.READY)


def test_drain_waits_for_what_is_in_flight(site: Site) -> None:
    site.launch()
    spec = site.want("patient").spec
    old = site.reaches("patient-0", EngineState.READY)
    in_flight(site, "patient-0", 1)
    site.wish("patient-0", Wish(spec, relaunch=1, reason="slow", cause=Cause.SLOW))
    draining = site.reaches("patient-0", EngineState.DRAINING)
    assert draining.reason == "slow"
    eventually(lambda: site.store.now() - draining.since > 3)
    assert stats(old)["pid"] == old.pid
    in_flight(site, "patient-0", 0)
    site.reaches("patient-0", EngineState.READY, incarnation=2)


def test_drain_ends_at_its_limit(site: Site) -> None:
    site.launch()
    spec = site.want("hasty").spec
    site.reaches("hasty-0", EngineState.READY)
    in_flight(site, "hasty-0", 1)
    site.wish("hasty-0", Wish(spec, relaunch=1, reason="slow", cause=Cause.SLOW))
    site.reaches("hasty-0", EngineState.READY, incarnation=2)


def test_second_signal_ends_a_drain_at_once(site: Site) -> None:
    launcher = site.launch()
    site.want("patient")
    site.reaches("patient-0", EngineState.READY)
    in_flight(site, "patient-0", 1)
    launcher.signal(signal.SIGTERM)
    site.reaches("patient-0", EngineState.DRAINING)
    launcher.signal(signal.SIGTERM)
    assert launcher.wait() == 0
    assert site.processes() == []


def test_hung_engine_is_relaunched_without_a_drain(site: Site) -> None:
    site.launch()
    spec = site.want("patient").spec
    old = site.reaches("patient-0", EngineState.READY)
    in_flight(site, "patient-0", 1)
    fault(old, hang=True)
    reason = "hung: no token for 61 s"
    site.wish("patient-0", Wish(spec, relaunch=1, reason=reason, cause=Cause.HUNG))
    site.reaches("patient-0", EngineState.READY, incarnation=2)
    assert not lives(old.pid)


def test_hung_engine_stops_proving_itself_and_a_healthy_one_goes_on(
    site: Site,
) -> None:
    site.launch()
    site.want("good")
    site.want("other")
    fault(site.reaches("good-0", EngineState.READY), hang=True)
    site.reaches("other-0", EngineState.READY)

    def apart() -> bool:
        engines = read_engines(site.store)
        return engines["other-0"].alive_at - engines["good-0"].alive_at > 8

    eventually(apart)
    assert site.reaches("good-0", EngineState.READY).incarnation == 1


def test_served_requests_prove_an_engine_alive_without_a_probe(site: Site) -> None:
    site.launch()
    site.want("good")
    engine = site.reaches("good-0", EngineState.READY)

    def proved(after: float) -> bool:
        in_flight(site, "good-0", 1, idle=0.1)
        return site.reaches("good-0", EngineState.READY).alive_at > after

    # A probe that was due before the launcher heard of them is over by then.
    eventually(lambda: proved(engine.alive_at))
    proofs = stats(engine)["completed"]
    later = site.reaches("good-0", EngineState.READY).alive_at + 6
    eventually(lambda: proved(later))
    assert stats(engine)["completed"] == proofs
