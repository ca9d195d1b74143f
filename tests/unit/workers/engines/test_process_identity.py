"""Which process is gone, and of which nothing is known."""

import os
import subprocess
import sys

import psutil

from tests.support.processes import LEADERLESS, eventually
from workers.engines.process_identity import find_own_process, is_gone


def of(pid: int) -> str:
    """What another process would say of itself."""
    space, _, _ = find_own_process().partition(" ")
    with open(f"/proc/{pid}/stat") as stat:
        started = stat.read().rpartition(")")[2].split()[19]
    return f"{space} {pid} {started}"


def test_a_process_is_gone_once_it_is_dead_reaped_or_not():
    sleeper = subprocess.Popen(["sleep", "60"])
    told = of(sleeper.pid)
    assert not is_gone(told)
    sleeper.kill()
    eventually(lambda: is_gone(told))
    sleeper.wait()
    assert is_gone(told)


def test_a_process_is_there_while_any_of_its_threads_has_its_connections():
    dying = subprocess.Popen([sys.executable, "-c", LEADERLESS])
    told, process = of(dying.pid), psutil.Process(dying.pid)
    eventually(lambda: process.status() == psutil.STATUS_ZOMBIE)
    assert not is_gone(told)
    dying.kill()
    eventually(lambda: is_gone(told))
    dying.wait()


def test_a_number_that_another_process_has_now_is_another_process():
    assert not is_gone(find_own_process())
    space, number, started = find_own_process().split(" ")
    assert int(number) == os.getpid()
    assert is_gone(f"{space} {number} {int(started) + 1}")


def test_of_another_machine_or_container_nothing_is_known():
    _, number, started = find_own_process().split(" ")
    assert not is_gone(f"other/pid:[1] {number} {int(started) + 1}")
    assert not is_gone("")
    assert not is_gone("nonsense")
