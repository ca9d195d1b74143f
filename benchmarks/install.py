"""What `pip install modelserver` brings: packages, megabytes, seconds to import."""

import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.machine import Elsewhere
from benchmarks.report import Goal, Report
from tests.clients.environments import Environment, build_wheel, install

#: Each time is the median of so many.
ROUNDS = 5
#: What is installed, by the extra that is named.
PARTS = {"modelserver": "", "modelserver[host]": "[host]"}
#: What may be imported until the first request can be sent, in seconds of CPU.
IMPORT_MOST_SECONDS = 2.0
IMPORTING = """
import time
from modelserver import complete
print(time.process_time())
"""


def install_size() -> Report:
    """The client alone, and with all that a host needs: the newest libraries.

    The seconds are a new Python's CPU time until `from modelserver import complete` is
    done.
    """
    elsewhere = Elsewhere()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build_wheel(folder / "wheels")
        rows = tuple(
            _row(part, install(f"{wheel}{extra}", folder / part, Path(sys.executable)))
            for part, extra in PARTS.items()
        )
    return Report(
        ("installed", "packages", "MB", "CPU s to import"),
        rows,
        (Goal("import the client", rows[0][3], IMPORT_MOST_SECONDS, "CPU s", True),),
        (f"others used {elsewhere.cores():.1f} cores meanwhile",),
    )


def _row(part: str, made: Environment) -> tuple[str, int, float, float]:
    def once() -> float:
        return float(made.run("-c", IMPORTING, cwd=made.site, PYTHONPATH=""))

    once()  # Writes bytecode.
    times = [once() for _ in range(ROUNDS)]
    return part, made.packages(), made.megabytes(), statistics.median(times)
