"""The lock of an installation, on one host and among several."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from launcher.environments import InstallProgress
from launcher.environments.install_lock import exclusive


def test_second_installation_waits_and_says_so(tmp_path: Path) -> None:
    lock = tmp_path / "sglang-cpu.lock"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, sys; f = open(sys.argv[1], 'a');"
            "fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); input()",
            str(lock),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdout.readline()
    reports: list[InstallProgress] = []

    def let_go_once_reported(progress: InstallProgress) -> None:
        reports.append(progress)
        holder.communicate(b"\n")

    with exclusive(lock, let_go_once_reported):
        assert reports[0].what == "waiting for another installation"


def test_installation_of_another_host_is_waited_for(tmp_path: Path) -> None:
    lock = tmp_path / "vllm.lock"
    claim = tmp_path / "vllm.lock.claim"
    claim.write_text("h2 a1")
    reports: list[InstallProgress] = []

    def end_once_reported(progress: InstallProgress) -> None:
        reports.append(progress)
        claim.unlink()

    with exclusive(lock, end_once_reported):
        assert "on host h2" in reports[0].why
        assert claim.read_text().startswith(socket.gethostname())
    assert not claim.exists()


def test_claim_that_nobody_touches_is_taken(tmp_path: Path) -> None:
    lock = tmp_path / "vllm.lock"
    claim = tmp_path / "vllm.lock.claim"
    claim.write_text("h2 a1")
    touches = 0

    def touch_once(progress: InstallProgress) -> None:
        nonlocal touches
        touches += 1
        if touches == 1:
            os.utime(claim, (1, 1))

    with exclusive(lock, touch_once, claim_seconds=0.2):
        assert touches >= 2
        assert claim.read_text().startswith(socket.gethostname())
    assert [path.name for path in tmp_path.iterdir()] == ["vllm.lock"]


def test_claim_that_a_killed_installation_left_here_is_taken_at_once(
    tmp_path: Path,
) -> None:
    (tmp_path / "vllm.lock.claim").write_text(f"{socket.gethostname()} a1")

    def refuse(progress: InstallProgress) -> None:
        raise AssertionError(progress)

    with exclusive(tmp_path / "vllm.lock", refuse):
        pass


def test_what_a_killed_taker_of_a_claim_left_bars_nobody(tmp_path: Path) -> None:
    (tmp_path / "vllm.lock.claim").write_text(f"{socket.gethostname()} a1")
    heir = tmp_path / "vllm.lock.claim.a1"
    heir.write_text("h2 b2")
    os.utime(heir, (1, 1))
    waits = 0

    def wait_once(progress: InstallProgress) -> None:
        nonlocal waits
        waits += 1
        assert waits == 1

    with exclusive(tmp_path / "vllm.lock", wait_once):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["vllm.lock"]
