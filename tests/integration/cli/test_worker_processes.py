"""Several workers as one program: real processes, of which most are no workers."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from modelserver.cli.worker_processes import find_processes
from modelserver.errors import ConfigurationError
from modelserver.fleet.file import make_fleet
from modelserver.store.fleet.workers import read_workers
from tests.support.processes import ROOT, ValkeyProcess, end, eventually, lives
from tests.support.workers import PATIENCE, open_fleet

#: A program that notes its start and each signal, and ends by the last of ``ends``.
CHILD = """
import os, signal, sys, time
log = open(sys.argv[1], "a", buffering=1)
def note(number, frame):
    log.write(signal.Signals(number).name + "\\n")
    if signal.Signals(number).name == sys.argv[2]:
        sys.exit(0)
for each in (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT):
    signal.signal(each, note)
log.write(f"started {os.getpid()}\\n")
while True:
    time.sleep(0.05)
"""
GROUP = """
import json, os, sys
from pathlib import Path
from modelserver.cli.program_group import ProgramGroup
group = ProgramGroup(json.loads(sys.argv[1]), Path.cwd(), os.environ, print)
sys.exit(group.run())
"""


class Group:
    """Two such programs, and the one that runs them."""

    def __init__(self, folder: Path, ends: str) -> None:
        self.logs = [folder / "0.log", folder / "1.log"]
        commands = {
            log.stem: [sys.executable, "-c", CHILD, str(log), ends] for log in self.logs
        }
        argv = [sys.executable, "-c", GROUP, json.dumps(commands)]
        self.process = subprocess.Popen(argv, cwd=ROOT, env=os.environ)
        eventually(lambda: len(self.pids()) == 2, PATIENCE)

    def said(self, place: int) -> list[str]:
        """What a child has noted."""
        log = self.logs[place]
        return log.read_text().splitlines() if log.exists() else []

    def pids(self) -> list[int]:
        """The children that live, in order."""
        starts = [[x for x in self.said(n) if "started" in x][-1:] for n in range(2)]
        found = [int(start[0].split()[1]) for start in starts if start]
        return [pid for pid in found if lives(pid)]


@contextmanager
def running(folder: Path, ends: str) -> Iterator[Group]:
    group = Group(folder, ends)
    try:
        yield group
    finally:
        pids = group.pids()
        end(group.process)
        for pid in filter(lives, pids):
            os.kill(pid, signal.SIGKILL)


def test_one_that_dies_is_started_again(tmp_path: Path):
    with running(tmp_path, "SIGTERM") as group:
        first, second = group.pids()
        os.kill(first, signal.SIGKILL)
        eventually(lambda: len(group.said(0)) == 2 and len(group.pids()) == 2, PATIENCE)
        assert group.pids()[1] == second
        group.process.send_signal(signal.SIGTERM)
        assert group.process.wait(PATIENCE) == 0
        assert group.said(1)[-1] == "SIGTERM"


def test_the_first_signal_is_passed_on_the_second_is_cold(tmp_path: Path):
    with running(tmp_path, "SIGQUIT") as group:
        group.process.send_signal(signal.SIGINT)
        eventually(lambda: group.said(0)[-1] == group.said(1)[-1] == "SIGINT", PATIENCE)
        assert len(group.pids()) == 2
        group.process.send_signal(signal.SIGTERM)
        assert group.process.wait(PATIENCE) == 0
        assert [group.said(n)[1:] for n in range(2)] == [["SIGINT", "SIGQUIT"]] * 2


def test_one_that_was_told_to_end_is_not_started_again(tmp_path: Path):
    with running(tmp_path, "SIGTERM") as group:
        for pid in group.pids():
            os.kill(pid, signal.SIGTERM)
        assert group.process.wait(PATIENCE) == 0
        assert [len(group.said(n)) for n in range(2)] == [2, 2]


def test_they_finish_should_their_program_be_killed(tmp_path: Path):
    with running(tmp_path, "SIGTERM") as group:
        group.process.kill()
        eventually(
            lambda: group.said(0)[-1] == group.said(1)[-1] == "SIGTERM", PATIENCE
        )


def test_real_workers_have_names_and_end_together(
    tmp_path: Path, valkey: ValkeyProcess
):
    with open_fleet(tmp_path, valkey.url) as site:
        program = subprocess.Popen(
            [sys.executable, "-m", "modelserver.cli", "worker", "--processes", "2"],
            cwd=ROOT,
            env={**os.environ, **site.environment},
        )
        try:
            eventually(lambda: len(read_workers(site.store)) == 2, 2 * PATIENCE)
            ping = site.app.control.ping
            named = {"worker@h1-0", "worker@h1-1"}
            eventually(
                lambda: {name for reply in ping(timeout=2) for name in reply} == named,
                PATIENCE,
            )
            children = psutil.Process(program.pid).children()
            program.terminate()
            assert program.wait(PATIENCE) == 0
            assert not [each.pid for each in children if lives(each.pid)]
            assert read_workers(site.store) == {}
        finally:
            end(program)


def test_auto_goes_by_cores_and_by_what_the_engines_take():
    model = {"name": "m", "engine": "command", "command": ["true"]}
    fleet = make_fleet("", {"models": [{**model, "max_engines": 8}]})
    numbers = [find_processes("auto", fleet, cores) for cores in (1, 2, 8, 16, 128)]
    assert numbers == [1, 1, 2, 4, 4]
    hosts = [{"name": "a"}, {"name": "b"}]
    fleet = make_fleet("", {"models": [{**model, "max_engines": 8}], "hosts": hosts})
    assert find_processes("auto", fleet, 128) == 2


@pytest.mark.parametrize("asked", ["0", "many", "-1", "1.5"])
def test_what_is_no_number_of_workers_is_refused(asked: str):
    with pytest.raises(ConfigurationError, match=f'processes is "{asked}"'):
        find_processes(asked, make_fleet("", {}), 2)


@pytest.mark.parametrize("value", [0, "many", True, 1.5])
def test_the_fleet_file_is_refused_that_names_no_number(value: object):
    with pytest.raises(
        ConfigurationError, match=r"workers\.processes: .* is no number"
    ):
        make_fleet("", {"workers": {"processes": value}})
