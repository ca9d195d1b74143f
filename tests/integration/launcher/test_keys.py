"""Engines with API keys: given by the launcher, or lent to it by somebody else."""

import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelserver.settings import load
from modelserver.values import EngineReport, EngineState
from tests.engine.process import EngineProcess
from tests.support.launchers import Site, open_site, section
from tests.support.processes import LauncherProcess, ValkeyProcess, eventually

GUARDED = section("guarded", "--key-env", "ENGINE_KEY", api_key_env="ENGINE_KEY")
LENT = '[[models]]\nname = "lent"\nengine = "external"\napi_key_env = "THEIR_KEY"\n'


@pytest.fixture
def site(tmp_path: Path, valkey: ValkeyProcess) -> Iterator[Site]:
    with open_site(tmp_path, valkey, GUARDED, LENT) as site:
        yield site


def key_of(site: Site, engine: EngineReport) -> str:
    address = engine.url.removeprefix("http://")
    return load(site.environment).keyring().key(address)


def status(engine: EngineReport, key: str) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    request = urllib.request.Request(engine.url + "/v1/models", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_each_start_of_an_engine_has_a_key_of_its_own(site: Site) -> None:
    site.launch()
    site.want("guarded")
    first = site.reaches("guarded-0", EngineState.READY)
    old = key_of(site, first)
    assert (status(first, old), status(first, "guessed")) == (200, 401)
    os.kill(first.pid, signal.SIGKILL)
    second = site.reaches("guarded-0", EngineState.READY, incarnation=2)
    new = key_of(site, second)
    assert new != old
    assert (status(second, new), status(second, old)) == (200, 401)


def test_the_next_launcher_uses_the_key_of_an_adopted_engine(site: Site) -> None:
    first = site.launch()
    site.want("guarded")
    engine = site.reaches("guarded-0", EngineState.READY)
    first.signal(signal.SIGQUIT)
    first.wait()
    site.launch()
    later = engine.alive_at + 6
    eventually(lambda: site.reaches("guarded-0", EngineState.READY).alive_at > later)
    assert site.reaches("guarded-0", EngineState.READY).pid == engine.pid


def test_the_key_of_an_ended_engine_is_removed(site: Site) -> None:
    launcher = site.launch()
    site.want("guarded")
    site.reaches("guarded-0", EngineState.READY)
    assert list((site.run_dir / "keys").iterdir())
    launcher.signal(signal.SIGTERM)
    launcher.wait()
    assert list((site.run_dir / "keys").iterdir()) == []


def test_an_engine_of_somebody_else_is_asked_with_the_key_that_was_lent(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THEIR_KEY", "sesame")
    with EngineProcess("--model", "lent", "--key-env", "THEIR_KEY") as theirs:
        environment = site.environment | {"THEIR_KEY": "sesame"}
        site.pin("lent", url=theirs.url)
        site.launchers.append(LauncherProcess(site.folder, environment))
        site.want("lent", url=theirs.url)
        engine = site.reaches("lent-0", EngineState.READY)
        assert (status(engine, "sesame"), status(engine, "")) == (200, 401)
    assert "sesame" not in site.said()


def test_a_lent_key_that_is_not_there_is_named(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("THEIR_KEY", raising=False)
    site.pin("lent", url="http://127.0.0.1:1")
    site.launch()
    site.want("lent", url="http://127.0.0.1:1")
    engine = site.reaches("lent-0", EngineState.FATAL)
    assert "THEIR_KEY" in engine.reason
    assert "restart the launcher" in engine.reason
