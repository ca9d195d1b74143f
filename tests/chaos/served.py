"""A gateway in front of a rig."""

import sys
import urllib.request

from benchmarks.machine import Processes
from benchmarks.rig import Rig
from tests.support.processes import eventually, free_port


def start_gateway(
    rig: Rig, port: int = 0, name: str = "gateway"
) -> tuple[Processes, str]:
    """A gateway that answers, and where; with port 0 at any free one."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    serve = [sys.executable, "-m", "modelserver.cli", "serve", f"--port={port}"]
    gateway = rig.program(serve, name)
    eventually(lambda: _answers(url), within=90)
    return gateway, url


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5):
            return True
    except OSError:
        return False
