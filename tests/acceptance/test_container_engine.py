"""Real SGLang in a real container, by docker or podman, under a real launcher."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from launcher import environments
from modelserver.values import EngineState
from tests.support.containers import ContainerHost, container_host, containers_end
from tests.support.launchers import Site, open_site, section
from tests.support.processes import (
    LauncherProcess,
    ValkeyProcess,
    eventually,
    lives,
)

pytestmark = pytest.mark.sglang


@pytest.fixture(scope="module")
def containers() -> Iterator[ContainerHost]:
    with container_host() as host:
        yield host


@pytest.fixture
def site(
    tmp_path: Path, valkey: ValkeyProcess, home: Path, containers: ContainerHost
) -> Iterator[Site]:
    python = environments.interpreter("sglang-cpu", home)
    environments.ensure_tiny_models(python, tmp_path / "models")
    mounted = (python.parents[1], environments.standins_path())
    text = section(
        "real",
        engine="sglang-cpu",
        command=[],
        path=str(tmp_path / "models" / "tiny-chat"),
        image=containers.image,
        interpreter=str(python),
        container_args=containers.arguments(*mounted),
        start_seconds=180,
    )
    # The image is empty, so this machine's stand-ins have to be named to it.
    text += f'environment = {{ PYTHONPATH = "{environments.standins_path()}" }}\n'
    with open_site(tmp_path, valkey, text) as site, containers_end(site, containers):
        yield site


def test_real_sglang_in_a_container_generates_and_leaves_nothing(
    site: Site, containers: ContainerHost
) -> None:
    environment = {**site.environment, **containers.environment}
    environment["MODELSERVER_CONTAINER_PROGRAM"] = containers.program
    environment["HF_HOME"] = str(site.folder / "cache")
    site.launchers.append(LauncherProcess(site.folder, environment))
    site.want("real")
    # READY means that a token has come back.
    site.reaches("real-0", EngineState.READY, within=180)
    (name,) = containers.names()
    first = int(containers.call("inspect", "--format", "{{.State.Pid}}", name))
    tree = psutil.Process(first).children(recursive=True)
    titles = [" ".join(each.cmdline()).strip() for each in tree]
    assert any(title.startswith("sglang::scheduler") for title in titles), titles
    # A scheduler that is lost is noticed from outside of the container.
    next(p for p, t in zip(tree, titles, strict=True) if "scheduler" in t).kill()
    site.reaches("real-0", EngineState.READY, incarnation=2, within=180)
    assert not any(lives(pid) for pid in (first, *(each.pid for each in tree)))
    site.wish("real-0", None)
    eventually(lambda: site.engine("real-0") is None)
    assert containers.names() == []
