"""What a stack notes of its programs, as other commands read it."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from modelserver.births import await_end, find_birth
from modelserver.cli.local_stack import HOST_FILE, Program, Stack
from modelserver.settings import Settings, load
from tests.support.processes import LEADERLESS, ROOT, eventually, frozen

#: A program that says by which signal it was stopped.
STOPPED = """
import time
from modelserver.cli.stopping import StoppedBySignal, stop_by_signal
stop_by_signal()
try:
    print("up", flush=True)
    time.sleep(300)
except StoppedBySignal as stopped:
    print(stopped)
"""


def make_settings(folder: Path) -> Settings:
    settings = load({"MODELSERVER_HOME": str(folder)}, folder)
    settings.make_run_dir()
    return settings


def test_an_owner_that_nobody_has_waited_for_runs_nothing(tmp_path: Path):
    settings = make_settings(tmp_path)
    stack = Stack(settings, print, host_only=True)
    with subprocess.Popen(["sleep", "600"]) as owner:
        note = {
            "owner": [owner.pid, psutil.Process(owner.pid).create_time()],
            "programs": {},
            "births": {owner.pid: asdict(find_birth(owner.pid) or sys.exit())},
        }
        (settings.run_dir / HOST_FILE).write_text(json.dumps(note))
        found = stack.find_owner()
        assert found is not None
        assert found.pid == owner.pid
        owner.kill()
        eventually(lambda: found.status() == psutil.STATUS_ZOMBIE)
        assert stack.find_owner() is None


def test_who_reads_the_note_while_it_is_written_has_the_one_before(tmp_path: Path):
    settings = make_settings(tmp_path)
    program = Program("launcher", ("true",), tmp_path / "log", stop_seconds=1.0)
    stack = Stack(settings, print, host_only=True, programs=[program])
    note = settings.run_dir / HOST_FILE
    note.write_text("the one before")
    with note.open() as read:
        program.start(os.environ)
        assert program.process is not None
        program.process.wait()
        stack.look_after(now=0.0)
        stack.look_after(now=60.0)
        assert read.read() == "the one before"
    assert json.loads(note.read_text())["owner"][0] == os.getpid()
    program.process.wait()


def test_a_program_that_no_signal_ends_keeps_no_stack_from_its_end(tmp_path: Path):
    settings, said = make_settings(tmp_path), list[str]()
    argv = ("sleep", "300")
    program = Program("launcher", argv, tmp_path / "log", stop_seconds=0.1)
    stack = Stack(settings, said.append, host_only=True, programs=[program])
    program.start(os.environ)
    stack._claim()
    assert program.process
    with frozen(program.process.pid):
        stack.stop()
        assert said[-1].startswith(f"launcher (pid {program.process.pid}) does not end")
        # The next one knows of it.
        assert (settings.run_dir / HOST_FILE).exists()
        assert stack.find_launcher()
    program.process.wait()
    assert stack.find_launcher() is None


def test_a_stack_whose_words_nobody_reads_stops_its_programs(tmp_path: Path):
    settings = make_settings(tmp_path)

    def say(line: str) -> None:
        raise BrokenPipeError(line)

    program = Program("launcher", ("sleep", "300"), tmp_path / "log", stop_seconds=60)
    stack = Stack(settings, say, host_only=True, programs=[program])
    program.start(os.environ)
    stack.stop()
    assert program.process
    assert program.process.returncode == -signal.SIGTERM


@pytest.mark.parametrize("is_ignored", [False, True])
def test_a_terminal_that_is_closed_stops_a_program(is_ignored: bool):
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        preexec_fn=(lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        if is_ignored
        else None,
    ) as program:
        assert program.stdout
        assert program.stdout.readline() == b"up\n"
        program.send_signal(signal.SIGHUP)
        program.send_signal(signal.SIGTERM)
        assert program.communicate()[0] == (b"SIGTERM\n" if is_ignored else b"SIGHUP\n")


def test_an_owner_runs_while_a_thread_of_it_has_its_sockets(tmp_path: Path):
    settings = make_settings(tmp_path)
    stack = Stack(settings, print, host_only=True)
    with subprocess.Popen([sys.executable, "-c", LEADERLESS]) as owner:
        found = psutil.Process(owner.pid)
        note = {
            "owner": [owner.pid, found.create_time()],
            "programs": {},
            "births": {owner.pid: asdict(find_birth(owner.pid) or sys.exit())},
        }
        (settings.run_dir / HOST_FILE).write_text(json.dumps(note))
        eventually(lambda: found.status() == psutil.STATUS_ZOMBIE)
        owns = stack.find_owner()
        owner.kill()
        assert owns == found


def test_the_end_of_a_process_is_seen_though_nobody_waits_for_it():
    with subprocess.Popen(["sleep", "300"]) as child:
        process = psutil.Process(child.pid)
        assert not await_end(process, 0.1)
        child.kill()
        assert await_end(process, 60)
        assert process.status() == psutil.STATUS_ZOMBIE
