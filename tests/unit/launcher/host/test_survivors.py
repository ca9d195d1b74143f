"""Processes that no signal ends: real ones, which the kernel holds."""

import os
import subprocess
from pathlib import Path

import psutil

from launcher.engine.stop import end_all
from launcher.engine_types import Launch
from launcher.host import process
from launcher.host.gpu_turns import GpuTurns
from launcher.host.survivors import SURVIVORS_FILE, Survivors
from launcher.host.troubles import HostTroubles
from tests.support.processes import eventually, frozen

TURNS = f"\0test-survivors-{os.getpid()}-"


def test_what_cannot_be_ended_is_told_and_keeps_its_gpus(tmp_path: Path) -> None:
    troubles, turns = HostTroubles(), GpuTurns(TURNS)
    survivors = Survivors(tmp_path / SURVIVORS_FILE, troubles, turns)
    unborn = process.new_identity()
    kept = turns.keep("m-0", ["GPU-0"], unborn.mark)
    launch = Launch(("/bin/sleep", "300"), {})
    engine = process.start(launch, tmp_path / "log", "engine=m-0", unborn, kept)
    pid = engine.identity.pid
    eventually(lambda: psutil.Process(pid).name() == "sleep")
    with frozen(pid):
        # What an engine is given after a kill is not waited for here.
        assert engine.kill(seconds=0.5) == [f"pid {pid}"]
        end_all("m-0", engine, ("GPU-0",), survivors)
        turns.give_back("m-0")
        who = f"pid {pid} (sleep) of engine m-0"
        assert troubles.now == (
            f"{who} was killed and does not end: it waits for a driver or a disk; look "
            "at `dmesg` of that host, and restart it if the process stays; nothing is "
            "started on its GPUs meanwhile",
        )
        assert survivors.find_kept()["GPU-0"].startswith(f"{who} does not end")
        # Other launchers leave it out as well, and so does the next one here.
        assert "GPU-0" in GpuTurns(TURNS).find_kept()
        later = HostTroubles()
        next_one = Survivors(tmp_path / SURVIVORS_FILE, later, GpuTurns(TURNS))
        assert "GPU-0" in next_one.find_kept()
        assert later.now == troubles.now
        survivors.look()
        assert survivors.find_kept()
    eventually(lambda: engine.ended() == "killed by SIGKILL")
    for each, told in ((survivors, troubles), (next_one, later)):
        each.look()
        assert each.find_kept() == {}
        assert told.now == ()
    assert GpuTurns(TURNS).find_kept() == {}


def test_an_engines_gpus_are_kept_until_the_last_of_it_has_ended(
    tmp_path: Path,
) -> None:
    turns = GpuTurns(TURNS)
    turns.keep("m-0", ["GPU-0"], "mark")
    survivors = Survivors(tmp_path / SURVIVORS_FILE, HostTroubles(), turns)
    two = [subprocess.Popen(["sleep", "300"]) for _ in range(2)]
    survivors.note("m-0", [psutil.Process(each.pid) for each in two], ("GPU-0",))
    turns.give_back("m-0")
    for each in two:
        assert "GPU-0" in survivors.find_kept()
        assert "GPU-0" in GpuTurns(TURNS).find_kept()
        each.kill()
        each.wait()
        survivors.look()
    assert survivors.find_kept() == GpuTurns(TURNS).find_kept() == {}


def test_a_number_that_is_another_process_by_now_is_no_survivor(tmp_path: Path) -> None:
    file = tmp_path / SURVIVORS_FILE
    with subprocess.Popen(["sleep", "300"]) as sleeper:
        first = Survivors(file, HostTroubles(), GpuTurns(TURNS))
        first.note("m-0", [psutil.Process(sleeper.pid)], ("GPU-0",))
        text = file.read_text()
        sleeper.kill()
    file.write_text(text.replace(f'"pid": {sleeper.pid}', f'"pid": {os.getpid()}'))
    again = Survivors(file, HostTroubles(), GpuTurns(TURNS))
    assert again.find_kept() == {}
