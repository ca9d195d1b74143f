"""Who runs a program."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from modelserver.settings import find_base
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


#: A program as a user who has no name, no home folder and no HOME.
NOBODY = """
import os
os.setgroups([])
os.setgid(54321)
os.environ.pop("HOME", None)
from modelserver.errors import ConfigurationError
from modelserver.user import find_home, find_login
os.setuid(54321)
try:
    find_home()
except ConfigurationError as error:
    print(error)
print(find_login())
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
def test_a_user_without_a_home_is_told_what_to_set():
    names = ("LOGNAME", "USER", "LNAME", "USERNAME")
    nameless = {k: v for k, v in os.environ.items() if k not in names}
    argv = [sys.executable, "-c", NOBODY]
    said = subprocess.check_output(argv, env=nameless, cwd=ROOT, text=True)
    told, login = said.splitlines()
    assert told.startswith("user 54321 has no home folder, and HOME is not set; set")
    assert login == "54321"


def test_a_base_folder_that_is_not_absolute_is_left_aside():
    for given in ("data", "", None):
        environ = {} if given is None else {"XDG_DATA_HOME": given}
        found = find_base("XDG_DATA_HOME", ".local/share", environ)
        assert found == Path.home() / ".local/share"
    environ = {"XDG_DATA_HOME": "/data"}
    assert find_base("XDG_DATA_HOME", ".local/share", environ) == Path("/data")


def test_a_working_folder_that_is_gone_is_told(tmp_path: Path):
    gone = tmp_path / "gone"
    gone.mkdir()
    code = (
        "import os; from modelserver.settings import load\n"
        "os.rmdir(os.getcwd())\n"
        "try: load()\nexcept Exception as error: print(error)"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-c", code]
    said = subprocess.check_output(argv, env=environ, cwd=gone, text=True)
    assert said == "the working folder is not there any more; go to another one\n"
