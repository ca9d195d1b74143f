"""OpenTelemetry for tests, from the folder that ``make`` installs it into.

Not among the other libraries: Redis' client imports it wherever it is, and each program
that a test starts would take a tenth of a second longer.
"""

import os
import sys
from pathlib import Path

#: The folder.
OTEL = Path(sys.prefix) / "otel"


def use_otel() -> None:
    """Let this process import it from now on."""
    if str(OTEL) not in sys.path:
        sys.path.append(str(OTEL))


def otel_path() -> dict[str, str]:
    """What lets a program import it."""
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([*filter(None, [before]), str(OTEL)])}
