"""A process is the same one for whoever looks, whatever their clocks say."""

import os
import subprocess
import sys

import pytest

from modelserver.births import Birth, find_birth, present_moment
from tests.support.processes import ROOT

#: Prints when a process began, and the moment.
LOOK = """
import sys
from modelserver.births import find_birth, present_moment
print(find_birth(int(sys.argv[1])).ticks, present_moment().ticks)
"""


def in_time_namespace(offset: int, *argv: str) -> str:
    """What a program prints where the host seems to run longer by so many seconds."""
    shift = ("unshare", "--time", "--boottime", str(offset), "--fork")
    done = subprocess.run(
        [*shift, *argv], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if "unshare" in done.stderr:
        pytest.skip(f"no time namespaces here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("offset", [1_000_000, -60])
def test_a_process_began_at_one_time_for_all_time_namespaces(offset: int):
    began = find_birth(os.getpid())
    assert began
    before = present_moment().ticks
    told = in_time_namespace(offset, sys.executable, "-c", LOOK, str(os.getpid()))
    ticks, moment = map(int, told.split())
    assert abs(ticks - began.ticks) <= 1
    assert before - 1 <= moment <= present_moment().ticks + 1


def test_births_are_told_apart_by_boot_and_ticks():
    one = Birth("boot", 500)
    assert one.is_that_of(Birth("boot", 500))
    for other in (Birth("boot", 501), Birth("later", 500), None):
        assert not one.is_that_of(other)
