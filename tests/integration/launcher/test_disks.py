"""Disks of a host that cannot be written to for a while: nothing is lost by that."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from modelserver.values import EngineState
from tests.support.launchers import Site, open_site
from tests.support.processes import ValkeyProcess, eventually


@pytest.fixture
def site(tmp_path: Path, valkey: ValkeyProcess) -> Iterator[Site]:
    with open_site(tmp_path, valkey) as site:
        yield site


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"mounts nothing here: {done.stderr.decode().strip()}")


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    mount("--bind", str(folder), str(folder))
    try:
        mount("-o", "remount,bind,ro", str(folder))
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


@pytest.mark.parametrize("part", ["engines", "keys"])
def test_an_engine_ends_and_its_launcher_too_while_its_files_are_read_only(
    site: Site, part: str
) -> None:
    launcher = site.launch()
    site.want("good")
    site.want("other")
    good = site.reaches("good-0", EngineState.READY)
    site.reaches("other-0", EngineState.READY)
    (site.run_dir / part).mkdir(exist_ok=True)
    with read_only(site.run_dir / part):
        os.kill(good.pid, signal.SIGKILL)
        site.wish("other-0", None)
        eventually(lambda: site.engine("other-0") is None)
        launcher.signal(signal.SIGTERM)
        assert launcher.wait() == 0
        assert "Traceback" not in launcher.said()
    # The next one makes nothing of what could not be removed.
    site.launch()
    site.want("good")
    site.reaches("good-0", EngineState.READY, incarnation=good.incarnation + 1)


def test_a_log_that_cannot_be_opened_is_named_and_takes_no_numbers(site: Site) -> None:
    log = site.run_dir / "logs" / "good-0.log"
    log.parent.mkdir(parents=True)
    os.mkfifo(log)
    site.launch()
    site.want("good")

    def reason() -> str:
        return site.reaches("good-0", EngineState.PENDING).reason

    # Nobody reads the pipe.
    eventually(lambda: f"No such device or address: '{log}'" in reason())
    log.unlink()
    log.mkdir()
    eventually(lambda: f"Is a directory: '{log}'" in reason())
    log.rmdir()
    assert site.reaches("good-0", EngineState.READY).incarnation == 1
