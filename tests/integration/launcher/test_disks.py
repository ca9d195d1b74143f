"""Disks of a host that cannot be written to for a while: nothing is lost by that."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from modelserver.values import EngineState
from tests.support.launchers import Site, open_site
from tests.support.processes import ROOT, ValkeyProcess, eventually


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


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    mount("-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def fill(folder: Path) -> Path:
    """Leave no byte of a disk; what is to be removed for that to end."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 512)
    return ballast


def test_a_launcher_adopts_its_engines_on_a_full_disk(
    site: Site, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "run"):
        first = site.launch()
        site.want("good")
        before = site.reaches("good-0", EngineState.READY)
        first.signal(signal.SIGQUIT)
        first.wait()
        ballast = fill(tmp_path / "run")
        second = site.launch()
        eventually(lambda: 'reason="adopted"' in second.said())
        assert "is not noted: [Errno 28]" in second.said()
        assert site.reaches("good-0", EngineState.READY).pid == before.pid
        ballast.unlink()
        second.signal(signal.SIGTERM)
        assert second.wait() == 0
        assert "Traceback" not in second.said()


@pytest.mark.parametrize("program", ["launcher", "beat", "engines", "join"])
def test_a_program_whose_home_is_read_only_says_so_in_a_line(
    site: Site, tmp_path: Path, program: str
) -> None:
    home, more = tmp_path / "home", {"engines": ["install", "sglang-cpu"]}
    home.mkdir()
    environment = site.environment | {"MODELSERVER_HOME": str(home)}
    if program == "join":
        del environment["MODELSERVER_FLEET"]
        more["join"] = [site.store.url]
    argv = [sys.executable, "-m", "modelserver.cli", program, *more.get(program, [])]
    with read_only(home):
        done = subprocess.run(
            argv,
            cwd=tmp_path if program == "join" else ROOT,
            env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode in (1, 2)
    said = done.stderr.strip().splitlines()[-1]
    assert f"Read-only file system: '{home}" in said
    assert said.endswith("; have its disk mounted for writing")
    assert "Traceback" not in done.stderr
