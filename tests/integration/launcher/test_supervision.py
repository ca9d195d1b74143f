"""What a launcher notices, tells and keeps of its engines beyond their bare life."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from launcher.host.records import Records
from modelserver.births import find_birth
from modelserver.operations.incidents import INCIDENTS_FOLDER, Incident, read_incidents
from modelserver.values import Cause, EngineState, Wish
from tests.engine.process import EngineProcess
from tests.support.launchers import (
    Site,
    fault,
    in_flight,
    open_site,
    section,
    stats,
)
from tests.support.processes import ROOT, ValkeyProcess, eventually, lives

SERVER = f"{sys.executable} -m tests.engine.server --port {{port}} --model {{model}}"
#: An engine whose scheduler is a process of its own, by its title.
SPLIT = f"(exec -a sglang::scheduler sleep 300) & exec {SERVER}"
#: An engine that has loaded a part of its weights and goes no further.
LOADING = (
    "echo Load weight begin; "
    "printf 'Loading safetensors checkpoint shards:  43%% Completed | 3/7 [00:01<'; "
    "exec sleep 300"
)
#: It listens and answers nobody.
MUTE = (
    "import socket, sys, time; "
    's = socket.create_server(("127.0.0.1", int(sys.argv[1]))); time.sleep(300)'
)


@pytest.fixture
def site(tmp_path: Path, valkey: ValkeyProcess) -> Iterator[Site]:
    late = f"until [ -e {tmp_path}/go ]; do sleep 0.1; done; exec {SERVER}"
    read = f"cd {{path}} && cd {ROOT} && exec {SERVER}"
    mute = f"{sys.executable} -c '{MUTE}' {{port}}"
    more = (
        section("mute", command=["/bin/sh", "-c", mute]),
        section("asleep", command=["sleep", "100000"]),
        section("late", command=["/bin/sh", "-c", late]),
        section("mounted", path=f"{tmp_path}/nfs/m", command=["/bin/sh", "-c", read]),
        section("script", command=["/bin/sh", f"{tmp_path}/serve.sh", "{port}"]),
        section("sharing", "--share-port", drain_seconds=60),
        section("split", command=["/bin/bash", "-c", SPLIT]),
        section("loading", command=["/bin/sh", "-c", LOADING], start_seconds=1),
        section("secretive", "--api-key", "s3cret", command=["/bin/sh", "-c", SERVER]),
    )
    with open_site(tmp_path, valkey, *more) as site:
        yield site


def mount(site: Site, *arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"mounts nothing here: {done.stderr.decode().strip()}")


def the_incident(site: Site) -> tuple[Incident, Path]:
    """The only incident there is, once it is complete, and its folder."""

    def complete() -> Incident:
        found = read_incidents(site.run_dir)
        assert len(found) == 1
        incident = found[0]
        assert (
            site.run_dir / INCIDENTS_FOLDER / incident.id / "decisions.json"
        ).exists()
        return incident

    incident = eventually(complete)
    return incident, site.run_dir / INCIDENTS_FOLDER / incident.id


def modelserver(site: Site, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "modelserver.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, **site.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


# Degraded engines.


def test_degraded_engine_serves_with_less_and_recovers(site: Site) -> None:
    site.launch()
    wish = site.want("good")
    assert site.reaches("good-0", EngineState.READY).limit == 64
    site.wish("good-0", replace(wish, limit=4, degraded="slow: 2.1x"))
    engine = site.reaches("good-0", EngineState.DEGRADED)
    assert (engine.limit, engine.reason) == (4, "slow: 2.1x")
    os.kill(engine.pid, signal.SIGKILL)
    engine = site.reaches("good-0", EngineState.DEGRADED, incarnation=2)
    assert (engine.limit, engine.died) == (4, 1)
    site.wish("good-0", wish)
    engine = site.reaches("good-0", EngineState.READY)
    assert (engine.limit, engine.reason, engine.incarnation) == (64, "", 2)


def test_limit_above_the_models_own_is_not_given(site: Site) -> None:
    site.launch()
    wish = site.want("good")
    site.wish("good-0", replace(wish, limit=1000))
    assert site.reaches("good-0", EngineState.READY).limit == 64


def test_degraded_engine_drains_as_a_ready_one_does(site: Site) -> None:
    site.launch()
    wish = replace(site.want("patient"), limit=4, degraded="slow: 2.1x")
    site.wish("patient-0", wish)
    old = site.reaches("patient-0", EngineState.DEGRADED)
    in_flight(site, "patient-0", 1)
    asked = replace(wish, relaunch=1, reason="asked for by anna", cause=Cause.ASKED)
    site.wish("patient-0", asked)
    site.reaches("patient-0", EngineState.DRAINING)
    assert stats(old)["pid"] == old.pid
    in_flight(site, "patient-0", 0)
    site.reaches("patient-0", EngineState.DEGRADED, incarnation=2)
    assert read_incidents(site.run_dir) == ()


# Starts.


def test_starting_engine_tells_what_it_does_and_is_not_given_up(site: Site) -> None:
    site.launch()
    site.want("loading")

    def told() -> bool:
        engine = site.reaches("loading-0", EngineState.STARTING)
        return engine.progress == "loading weights 43 % (3/7 shards)"

    eventually(told)
    engine = site.reaches("loading-0", EngineState.STARTING)
    # Its limit is a second, and what it did last is not old.
    eventually(lambda: site.store.now() - engine.since > 4)
    assert site.reaches("loading-0", EngineState.STARTING).incarnation == 1
    assert "loading weights 43 % (3/7 shards)" in modelserver(site, "status")


def test_start_that_takes_too_long_names_its_limit_and_leaves_an_incident(
    site: Site,
) -> None:
    site.launch()
    site.want("stuck")
    reason = site.reaches("stuck-0", EngineState.BACKOFF).reason
    assert "(limit 5 s)" in reason
    incident, folder = the_incident(site)
    assert (incident.engine, incident.state) == ("stuck-0", "STARTING")
    assert incident.reason == reason
    assert "tests.engine.server" in (folder / "processes.txt").read_text()


def test_a_model_on_a_disk_that_is_mounted_late_starts_by_itself(
    site: Site, tmp_path: Path
) -> None:
    site.launch()
    site.want("mounted")
    reason = site.reaches("mounted-0", EngineState.BACKOFF).reason
    assert f"path {tmp_path}/nfs/m is not there: {tmp_path} has no" in reason
    (tmp_path / "nfs" / "m").mkdir(parents=True)
    assert site.reaches("mounted-0", EngineState.READY).incarnation == 1


def test_a_file_that_goes_while_an_engine_starts_is_no_end_either(
    site: Site, tmp_path: Path
) -> None:
    site.launch()
    site.want("script")
    reason = site.reaches("script-0", EngineState.BACKOFF).reason
    assert "a file of this host is not there (" in reason
    assert f"{tmp_path}/serve.sh" in reason
    (tmp_path / "serve.sh").write_text(f"exec {SERVER}".format(port="$1", model="x"))
    site.reaches("script-0", EngineState.READY)


def test_an_engine_leaves_a_port_that_another_process_shares(site: Site) -> None:
    site.launch()
    site.want("sharing")
    old = site.reaches("sharing-0", EngineState.READY)
    port = int(old.url.rpartition(":")[2])
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", port))
        stranger.listen()
        draining = site.reaches("sharing-0", EngineState.DRAINING)
        assert draining.is_called_off
        assert f"pid {os.getpid()} (" in draining.reason
        new = site.reaches("sharing-0", EngineState.READY, incarnation=2)
        assert new.url != old.url
        assert not new.is_called_off


def test_a_log_folder_that_becomes_read_only_is_waited_for(site: Site) -> None:
    site.launch()
    site.want("good")
    old = site.reaches("good-0", EngineState.READY)
    logs = site.run_dir / "logs"
    mount(site, "--bind", str(logs), str(logs))
    try:
        mount(site, "-o", "remount,bind,ro", str(logs))
        os.kill(old.pid, signal.SIGKILL)

        # Between its death and its next start the reason is that it was killed.
        eventually(
            lambda: (
                "Read-only file system"
                in site.reaches("good-0", EngineState.PENDING).reason
            )
        )
        assert "Traceback" not in site.said()
        mount(site, "-o", "remount,bind,rw", str(logs))
        site.reaches("good-0", EngineState.READY, incarnation=2)
        assert site.said().count("cannot prepare") == 1
    finally:
        subprocess.run(["umount", "--lazy", str(logs)], check=False)


# Deaths.


def test_engine_that_lost_its_scheduler_is_started_again_at_once(site: Site) -> None:
    site.launch()
    site.want("split")
    old = site.reaches("split-0", EngineState.READY)
    (scheduler,) = psutil.Process(old.pid).children()
    scheduler.kill()
    new = site.reaches("split-0", EngineState.READY, incarnation=2)
    assert new.died == 1
    assert not lives(old.pid)
    lost = f"its process sglang::scheduler 300 (pid {scheduler.pid}) ended"
    assert lost in site.said()


def test_death_while_serving_leaves_an_incident_that_can_be_read(site: Site) -> None:
    site.launch()
    site.want("good")
    old = site.reaches("good-0", EngineState.READY)
    child = stats(old)["child_pid"]
    os.kill(old.pid, signal.SIGKILL)
    site.reaches("good-0", EngineState.READY, incarnation=2)
    incident, folder = the_incident(site)
    assert (incident.state, incident.incarnation) == ("READY", 1)
    assert incident.reason.startswith("killed by SIGKILL")
    assert f"{child} " in (folder / "processes.txt").read_text()
    assert "listening on" in (folder / "log.txt").read_text()
    assert incident.id in modelserver(site, "incidents")
    (listed,) = json.loads(modelserver(site, "incidents", "--json"))
    assert listed["path"] == str(folder)
    shown = modelserver(site, "incidents", "show", incident.id)
    assert "killed by SIGKILL" in shown
    assert "sleep" in shown


def test_hung_engine_is_told_of_and_its_stacks_are_kept(site: Site) -> None:
    site.launch()
    spec = site.want("patient").spec
    old = site.reaches("patient-0", EngineState.READY)
    in_flight(site, "patient-0", 3)
    fault(old, hang=True)

    def told() -> bool:
        return site.reaches("patient-0", EngineState.READY).hung_seconds >= 10

    eventually(told)
    assert "s with 3 in flight" in modelserver(site, "status")
    reason = "hung: no token for 61 s"
    site.wish("patient-0", Wish(spec, relaunch=1, reason=reason, cause=Cause.HUNG))
    new = site.reaches("patient-0", EngineState.READY, incarnation=2)
    assert new.hung_seconds == 0
    incident, folder = the_incident(site)
    assert (incident.reason, incident.inflight) == (reason, 3)
    stacks = (folder / "stacks.txt").read_text()
    assert "engine/server.py" in stacks or "no Python stack: py-spy: " in stacks


def test_incident_holds_no_key(site: Site) -> None:
    site.launch()
    site.want("secretive")
    old = site.reaches("secretive-0", EngineState.READY)
    os.kill(old.pid, signal.SIGKILL)
    _, folder = the_incident(site)
    kept = "".join(path.read_text() for path in folder.iterdir())
    assert "s3cret" not in kept


# Adoption.


def test_stranger_with_an_engines_pid_or_port_is_not_adopted_nor_ended(
    site: Site,
) -> None:
    first = site.launch()
    site.want("good")
    before = site.reaches("good-0", EngineState.READY)
    first.signal(signal.SIGKILL)
    first.wait()
    os.kill(before.pid, signal.SIGKILL)
    eventually(lambda: not lives(before.pid))
    port = int(before.url.rpartition(":")[2])
    stranger = subprocess.Popen(["sleep", "300"], start_new_session=True)
    try:
        records = Records(site.run_dir / "engines")
        (record,) = records.read_all()
        birth = find_birth(stranger.pid)
        assert birth
        taken = replace(record.process, pid=stranger.pid, birth=birth)
        records.write(replace(record, process=taken))
        with socket.create_server(("127.0.0.1", port)):
            site.launch()
            after = site.reaches("good-0", EngineState.READY, incarnation=2)
        assert after.pid != stranger.pid
        assert after.url != before.url
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_stranger_on_an_engines_port_gets_no_prompt_and_makes_nothing_ready(
    site: Site,
) -> None:
    site.launch()
    site.want("late")
    url = eventually(lambda: site.reaches("late-0", EngineState.STARTING).url)
    port = url.rpartition(":")[2]
    assert 21_000 <= int(port) < 24_000
    with EngineProcess("--port", port, "--model", "late") as stranger:
        told = f"port {port} was taken by pid {stranger.pid} ("
        eventually(lambda: told in site.reaches("late-0", EngineState.STARTING).reason)
        # The engine cannot listen there, and dies of it.
        (site.folder / "go").touch()
        own = site.reaches("late-0", EngineState.READY, incarnation=2)
        assert own.url != url
        assert stranger.stats()["received"] == 0


@pytest.mark.parametrize(
    ("model", "told"),
    [("mute", "listens and does not answer within 2 s"), ("asleep", "nothing listens")],
)
def test_what_a_starting_engine_is_waited_for_is_told_at_once(
    site: Site, model: str, told: str
) -> None:
    site.launch()
    site.want(model)

    def says(words: str) -> bool:
        engine = site.reaches(f"{model}-0", EngineState.STARTING)
        return words in engine.reason

    eventually(lambda: says(told))
    eventually(lambda: says(", for 10 s"))
