"""``python -m tests.clients [NAME]``: a pipeline with the client alone, on each Python.

The fleet runs here: a server, a worker and two test engines. The pipeline has an
environment of its own, with the newest libraries or the oldest that are allowed.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.report import Goal, Report, main
from tests.clients import pipeline
from tests.clients.environments import VERSIONS, build_wheel, find_python, install
from tests.support.processes import ValkeyProcess
from tests.support.workers import open_fleet

#: What is installed: the newest of everything, or the oldest that we allow of what we
#: name ourselves.
NEWEST, LOWEST = "highest", "lowest-direct"


def pythons() -> Report:
    """The newest libraries, on each Python that is on this machine."""
    return _report(VERSIONS, NEWEST)


def lowest() -> Report:
    """The oldest libraries that are allowed, on the oldest Python."""
    return _report(VERSIONS[:1], LOWEST)


def _report(versions: tuple[str, ...], resolution: str) -> Report:
    found = {version: find_python(version) for version in versions}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        wheel = str(build_wheel(folder / "wheels"))
        with _fleet(folder) as environment:
            rows = tuple(
                _try(wheel, folder / version, python, resolution, environment)
                for version, python in found.items()
                if python
            )
    return Report(
        ("Python", "checks passed", "packages", "MB"),
        rows,
        (Goal("Pythons tried", len(rows), 1),),
        tuple(
            f"Python {version} is not on this machine"
            for version, python in found.items()
            if not python
        ),
    )


@contextmanager
def _fleet(folder: Path) -> Iterator[dict[str, str]]:
    """A fleet for the tests' models; what its clients have in their environment."""
    valkey = ValkeyProcess(folder).start()
    try:
        with open_fleet(folder, valkey.url) as fleet:
            fleet.engine("writer-0")
            fleet.engine("vectors-0", model="vectors")
            fleet.worker()
            yield fleet.environment | {"PYTHONPATH": ""}
    finally:
        valkey.stop()


def _try(
    wheel: str,
    folder: Path,
    python: Path,
    resolution: str,
    environment: dict[str, str],
) -> tuple[str, int, int, float]:
    made = install(wheel, folder, python, "--resolution", resolution)
    work = folder / "work"
    work.mkdir()
    said = json.loads(made.run(str(pipeline.__file__), cwd=work, **environment))
    return said["python"], said["checks"], made.packages(), made.megabytes()


CASES = {"pythons": pythons, "lowest": lowest}

if __name__ == "__main__":
    sys.exit(main("clients", CASES, sys.argv[1:]))
