"""Engines in real containers, by docker or podman, under a real launcher."""

import os
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from modelserver.settings import load
from modelserver.values import EngineReport, EngineState
from tests.support.containers import ContainerHost, container_host, containers_end
from tests.support.launchers import Site, in_flight, open_site, section
from tests.support.processes import (
    LauncherProcess,
    ValkeyProcess,
    eventually,
    lives,
)


@pytest.fixture(scope="module")
def containers() -> Iterator[ContainerHost]:
    with container_host() as host:
        yield host


@pytest.fixture
def site(
    tmp_path: Path, valkey: ValkeyProcess, containers: ContainerHost
) -> Iterator[Site]:
    keys = {
        "image": containers.image,
        "container_args": containers.arguments(),
        "api_key_env": "ENGINE_KEY",
    }
    boxed = section("boxed", "--spawn-child", "--key-env", "ENGINE_KEY", **keys)
    absent = section("absent", image="modelserver-test:never-made")
    failing = section("failing", "--no-such-option", **keys)
    with (
        open_site(tmp_path, valkey, boxed, absent, failing) as site,
        containers_end(site, containers),
    ):
        yield site


def launch(site: Site, containers: ContainerHost) -> LauncherProcess:
    program = {"MODELSERVER_CONTAINER_PROGRAM": containers.program}
    environment = {**site.environment, **containers.environment, **program}
    # Hugging Face's cache is made where there is none: not in this user's home.
    environment["HF_HOME"] = str(site.folder / "cache")
    launcher = LauncherProcess(site.folder, environment)
    site.launchers.append(launcher)
    return launcher


def inner_pids(containers: ContainerHost, name: str) -> list[int]:
    """This host's numbers of a container's processes."""
    first = int(containers.call("inspect", "--format", "{{.State.Pid}}", name))
    tree = psutil.Process(first).children(recursive=True)
    return [first, *(each.pid for each in tree)]


def key_of(site: Site, engine: EngineReport) -> str:
    address = engine.url.removeprefix("http://")
    return load(site.environment).keyring().key(address)


def command_lines() -> str:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            found += process.cmdline()
    return "\n".join(found)


def test_engine_in_a_container_serves_and_its_key_shows_nowhere(
    site: Site, containers: ContainerHost
) -> None:
    launch(site, containers)
    site.want("boxed")
    engine = site.reaches("boxed-0", EngineState.READY)
    key = key_of(site, engine)
    assert len(key) == 64
    request = urllib.request.Request(engine.url + "/v1/models")
    request.add_header("Authorization", f"Bearer {key}")
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200
    (name,) = containers.names()
    label = '{{index .Config.Labels "modelserver.engine"}}'
    assert containers.call("inspect", "--format", label, name).strip() == "boxed-0"
    assert all(lives(pid) for pid in inner_pids(containers, name))
    assert key not in command_lines()
    assert key not in site.said() + Path(engine.log).read_text()


def test_engine_wanted_no_longer_is_drained_and_its_container_goes(
    site: Site, containers: ContainerHost
) -> None:
    launch(site, containers)
    site.want("boxed")
    site.reaches("boxed-0", EngineState.READY)
    (name,) = containers.names()
    pids = inner_pids(containers, name)
    in_flight(site, "boxed-0", 1)
    site.wish("boxed-0", None)
    site.reaches("boxed-0", EngineState.DRAINING)
    assert all(lives(pid) for pid in pids)
    in_flight(site, "boxed-0", 0)
    eventually(lambda: site.engine("boxed-0") is None)
    assert containers.names() == []
    assert not any(lives(pid) for pid in pids)


def test_container_goes_when_its_client_is_killed(
    site: Site, containers: ContainerHost
) -> None:
    launch(site, containers)
    site.want("boxed")
    engine = site.reaches("boxed-0", EngineState.READY)
    (old,) = containers.names()
    pids = inner_pids(containers, old)
    os.kill(engine.pid, signal.SIGKILL)
    site.reaches("boxed-0", EngineState.READY, incarnation=2)
    assert not any(lives(pid) for pid in pids)
    (new,) = containers.names()
    assert new != old


def test_engine_that_dies_in_its_container_is_started_again(
    site: Site, containers: ContainerHost
) -> None:
    launch(site, containers)
    site.want("boxed")
    site.reaches("boxed-0", EngineState.READY)
    (old,) = containers.names()
    os.kill(inner_pids(containers, old)[0], signal.SIGKILL)
    site.reaches("boxed-0", EngineState.READY, incarnation=2)
    assert "exit code 137" in site.said()
    assert old not in containers.names()


def test_killed_launcher_comes_back_and_adopts_the_container(
    site: Site, containers: ContainerHost
) -> None:
    first = launch(site, containers)
    site.want("boxed")
    before = site.reaches("boxed-0", EngineState.READY)
    (name,) = containers.names()
    first.signal(signal.SIGKILL)
    first.wait()
    second = launch(site, containers)
    eventually(
        lambda: site.reaches("boxed-0", EngineState.READY).alive_at > before.alive_at
    )
    after = site.reaches("boxed-0", EngineState.READY)
    assert (after.pid, after.incarnation) == (before.pid, before.incarnation)
    assert containers.names() == [name]
    second.signal(signal.SIGTERM)
    assert second.wait() == 0
    assert containers.names() == []


def test_container_whose_launcher_and_client_were_killed_goes_at_the_next_start(
    site: Site, containers: ContainerHost
) -> None:
    first = launch(site, containers)
    site.want("boxed")
    engine = site.reaches("boxed-0", EngineState.READY)
    (old,) = containers.names()
    pids = inner_pids(containers, old)
    first.signal(signal.SIGKILL)
    first.wait()
    os.kill(engine.pid, signal.SIGKILL)
    assert all(lives(pid) for pid in pids)
    launch(site, containers)
    site.reaches("boxed-0", EngineState.READY, incarnation=2)
    assert not any(lives(pid) for pid in pids)
    assert old not in containers.names()


def test_only_own_containers_without_a_record_are_swept_away(
    site: Site, containers: ContainerHost
) -> None:
    def begin(name: str, owner: str) -> None:
        label = f"modelserver.run={owner}"
        options = ("--detach", "--name", name, "--label", label)
        containers.run(*options, command=("sleep", "300"))

    begin("modelserver-lost", str(site.run_dir))
    begin("modelserver-theirs", "/somewhere/else")
    launch(site, containers)
    site.want("boxed")
    site.reaches("boxed-0", EngineState.READY)
    names = containers.names()
    assert "modelserver-lost" not in names
    assert "modelserver-theirs" in names
    assert "container=modelserver-lost was left behind" in site.said()


def test_missing_image_is_fatal_and_names_the_command(
    site: Site, containers: ContainerHost
) -> None:
    launch(site, containers)
    site.want("absent")
    reason = site.reaches("absent-0", EngineState.FATAL).reason
    assert "pull modelserver-test:never-made" in reason


def test_wrong_argument_in_a_container_is_fatal_at_once(
    site: Site, containers: ContainerHost
) -> None:
    launch(site, containers)
    site.want("failing")
    engine = site.reaches("failing-0", EngineState.FATAL)
    assert engine.incarnation == 1
    assert "unrecognized arguments" in engine.reason
    assert containers.names() == []


def test_program_that_does_not_work_is_told(site: Site) -> None:
    program = {"MODELSERVER_CONTAINER_PROGRAM": "/no/such/podman"}
    site.launchers.append(LauncherProcess(site.folder, site.environment | program))
    site.want("boxed")

    def reason() -> str:
        return site.reaches("boxed-0", EngineState.PENDING).reason

    eventually(lambda: "/no/such/podman is not installed" in reason())
    assert "MODELSERVER_CONTAINER_PROGRAM" in reason()
