"""Requests made by chance from the gateway's own description, most of them malformed.

A fuzzer in an environment of its own, schemathesis, reads ``/openapi.json``.
"""

import os
import re
import subprocess
from pathlib import Path

from benchmarks.report import Goal, Report
from benchmarks.rig import Rig
from benchmarks.stacks import python_of_requirements
from modelserver import settings as settings_module
from tests.chaos.served import start_gateway

#: Requests that are wanted at least; RUN_REQUESTS makes it another number.
REQUESTS = int(os.environ.get("RUN_REQUESTS", "10000"))
#: Requests to one path and method, per request that is wanted: there are 16 of them,
#: and some have little to vary.
SHARE = 1 / 17
#: Answers that tell of an engine, a queue or a deadline, and not of a fault of ours.
EXPECTED = ("2xx", "3xx", "4xx", 503, 504)
#: How long the fuzzer may take, in seconds.
LAST_SECONDS = 3_600.0
CONFIGURATION = """
seed = 5

[checks]
not_a_server_error.expected-statuses = {expected}

[generation]
allow-x00 = true
"""
_MADE = re.compile(r"Test cases:\s+([\d,]+) generated")
_FAILED = re.compile(r"ST101 Server error: (\d+)")
#: A fault of ours in the gateway's log: its last line names the error.
_TRACEBACK = re.compile(r"^Traceback .*\n(?:[ \t].*\n|\n)*(.*)", re.M)


def _fuzz(python: Path, url: str, folder: Path, requests: int) -> str:
    """Run the fuzzer to its end; what it says."""
    configuration = folder / "schemathesis.toml"
    configuration.write_text(CONFIGURATION.format(expected=list(EXPECTED)))
    done = subprocess.run(
        [
            python.with_name("schemathesis"),
            f"--config-file={configuration}",
            "run",
            f"{url}/openapi.json",
            "--checks=not_a_server_error",
            "--phases=coverage,fuzzing",
            "--suppress-health-check=all",
            "--continue-on-failure",
            "--no-shrink",
            "--workers=4",
            f"--max-examples={int(requests * SHARE)}",
            "--request-timeout=60",
            "--warnings=off",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LAST_SECONDS,
        check=False,
    )
    return done.stdout + done.stderr


def gateway_fuzz() -> Report:
    """Malformed requests in thousands: no answer of 500, no process down."""
    python = python_of_requirements("requirements-fuzz.txt", settings_module.load())
    with Rig(engines=2, limit=64) as rig:
        rig.worker()
        gateway, url = start_gateway(rig)
        said = _fuzz(python, url, rig.folder, REQUESTS)
        down = 3 - rig.living() + (not gateway.alive)
        log = (rig.folder / "gateway.log").read_text()
    made, failed = _MADE.search(said), _FAILED.search(said)
    count = int(made[1].replace(",", "")) if made else 0
    faults = int(failed[1]) if failed else 0
    ours = _TRACEBACK.findall(log)
    if faults or not made:
        print(said)
    return Report(
        ("requests", "kinds of server errors", "errors in the log", "processes down"),
        ((count, faults, len(ours), down),),
        (
            Goal("requests made", count, REQUESTS),
            Goal("answers of 500", faults + len(ours), 0, at_most=True),
            Goal("processes down", down, 0, at_most=True),
        ),
        tuple(dict.fromkeys(ours)),
    )
