"""Who runs a program."""

import os
import pwd
import subprocess
import sys

import pytest

from tests.support.processes import ROOT

#: As in a container that was given a user's number alone.
PROGRAM = """
import os, sys
from modelserver.control.applied_fleet import compose
from modelserver.fleet.file import make_fleet
from modelserver.user import find_user
os.setuid(int(sys.argv[1]))
print(find_user())
print(compose(make_fleet("fleet.toml", {}), None, now=1.0).by)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_user_without_a_name_is_a_number():
    number = max(each.pw_uid for each in pwd.getpwall() if each.pw_uid < 60_000) + 1
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(number)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    name, by = done.stdout.splitlines() or ("", done.stderr)
    assert name == f"user {number}"
    assert by.startswith(f"user {number}@")
