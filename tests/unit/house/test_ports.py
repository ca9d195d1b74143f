"""Servers of tests have ports that nothing else takes just before they start."""

import subprocess
import sys

from launcher.host.allocation import FIRST_PORT, LAST_PORT
from tests.support.processes import PORTS_OF_A_PROCESS, ROOT, TEST_PORTS, free_port

#: More than a process has for itself at a time.
NUMBER = PORTS_OF_A_PROCESS + 1
GIVE = f"""
from tests.support.processes import free_port
print(*(free_port() for _ in range({NUMBER})))
"""


def test_no_port_is_given_twice_whichever_process_asks():
    own = [free_port() for _ in range(NUMBER)]
    argv = [sys.executable, "-c", GIVE]
    said = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    others = [int(port) for port in said.stdout.split()]
    assert len({*own, *others}) == 2 * NUMBER


def test_no_port_is_one_of_engines():
    assert not {*TEST_PORTS} & {*range(FIRST_PORT, LAST_PORT + 1)}
