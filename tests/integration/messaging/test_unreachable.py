"""Where Redis is gone, a client is told so soon."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from celery import chain, chord, group

from modelserver.api import client
from modelserver.errors import StoreUnreachableError, UnknownModelError
from modelserver.settings import load
from tests.support.processes import ROOT, ValkeyProcess
from tests.support.workers import FleetSite, open_fleet

#: A call gives up after a second or so; others may use the machine.
SOON_SECONDS = 5.0

WAYS: dict[str, Callable[[FleetSite], object]] = {
    "delay": lambda site: site.complete.delay("x"),
    "chain": lambda site: chain(site.complete.s("x"), site.complete.s())(),
    "group": lambda site: group(site.complete.s("x") for _ in range(5))(),
    "chord": lambda site: chord([site.complete.s("x")] * 3, site.embed.s())(),
    "aio": lambda site: asyncio.run(aio(site)),
}


async def aio(site: FleetSite) -> object:
    return await asyncio.gather(*(site.complete.aio(f"{n}") for n in range(50)))


@contextmanager
def soon() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < SOON_SECONDS


@pytest.fixture(scope="module")
def orphan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetSite]:
    """A client that has sent, holds results and waits for one; its server is gone."""
    folder: Path = tmp_path_factory.mktemp("fleet")
    valkey = ValkeyProcess(folder).start()
    with open_fleet(folder, valkey.url) as site:
        held = [site.complete.delay("held") for _ in range(100)]
        held[0].then(print)
        valkey.stop()
        yield site


@pytest.mark.parametrize("way", WAYS)
def test_a_request_is_refused_soon(orphan: FleetSite, way: str):
    with soon(), pytest.raises(StoreUnreachableError, match="was not accepted"):
        WAYS[way](orphan)


def test_a_server_without_a_fleet_is_named_and_no_file_that_is_not_there(
    fleet: FleetSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MODELSERVER_REDIS_URL", fleet.settings.redis_url)
    monkeypatch.setenv("MODELSERVER_REDIS_PREFIX", "misspelt:")
    app = client(load({"MODELSERVER_HOME": str(tmp_path)}, cwd=tmp_path))
    for model in (None, "writer"):
        with pytest.raises(UnknownModelError) as refused:
            app.modelserver_tasks[0].delay("x", model=model)
        assert 'knows of no fleet with the prefix "misspelt:"' in str(refused.value)


#: By what is wrong: the variables of a program, and what it is told at the end.
ALONE = {
    "no fleet": ({}, "so it is not known which fleet is meant"),
    "no server": (
        {"MODELSERVER_REDIS_URL": "redis://127.0.0.1:1/0"},
        "does not answer",
    ),
    "no file": ({"MODELSERVER_FLEET": "/nowhere/f.toml"}, "which does not exist"),
    "no URL": ({"MODELSERVER_REDIS_URL": "127.0.0.1"}, "MODELSERVER_REDIS_URL says so"),
}
CALLS = (
    "from modelserver import complete; complete.delay('x')",
    "from modelserver import map_prompts; list(map_prompts(['x']))",
    "from modelserver import embed_texts; embed_texts(['x'])",
)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("wrong", ALONE)
def test_a_program_alone_is_told_by_one_traceback(
    tmp_path: Path, wrong: str, call: str
):
    variables, told = ALONE[wrong]
    kept = {name: text for name, text in os.environ.items() if "SERVER" not in name}
    home = {"MODELSERVER_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", call],
        cwd=tmp_path,
        env={**kept, **home, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told in done.stderr.splitlines()[-1]
    assert done.stderr.count("Traceback") == 1
