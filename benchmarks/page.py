"""What the fleet page costs: processor time and bytes of each page."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.machine import Elsewhere
from benchmarks.report import Goal, Report
from modelserver.page.drawing import Drawing
from modelserver.page.pages import PAGES, FleetPage, fleet_page
from modelserver.page.reading import FleetReader, FleetReading
from tests.support.fleet_records import Records
from tests.support.processes import ValkeyProcess

#: The fleet of the measurement.
ENGINES, MODELS, RUNS = 100, 20, 10
#: Each figure is the median of so many.
ROUNDS = 15
#: The most that a page may take, read and drawn, in milliseconds
#: of processor time.
PAGE_MOST_MS = 250.0


def page() -> Report:
    """Processor time of a read, and of each page; the bytes of what is refetched.

    100 engines, 20 models, 10 runs: records in a real Valkey, nothing else runs.
    """
    elsewhere = Elsewhere()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "valkey").mkdir()
        server = ValkeyProcess(folder / "valkey").start()
        try:
            names = [f"model-{number}" for number in range(MODELS)]
            records = Records.open(folder, server.url, names)
            records.write(ENGINES, RUNS)
            reader = FleetReader(records.settings)
            found = reader.read(records.store)
            read = _milliseconds(lambda: reader.read(records.store))
            rows = [_row(found, name, drawn) for name, drawn in _pages(found)]
            records.store.client.close()
        finally:
            server.stop()
    whole = rows[0]
    return Report(
        ("page", "CPU ms to draw", "kB"),
        tuple(rows),
        (
            Goal(
                "read and draw the fleet", read + whole[1], PAGE_MOST_MS, "CPU ms", True
            ),
        ),
        (
            f"reading the fleet takes {read:.0f} ms of CPU, at most once a second",
            f"others used {elsewhere.cores():.1f} cores meanwhile",
        ),
    )


def _pages(found: FleetReading) -> list[tuple[str, FleetPage]]:
    pages = [("the fleet", fleet_page(found))]
    for folder, name in (
        ("models", found.models[0].status.name),
        ("engines", found.engines[0].status.id),
        ("hosts", found.status.hosts[0].name),
        ("runs", found.runs[0].found.run.id),
    ):
        one = PAGES[folder](found, name)
        assert one is not None
        pages.append((folder, one))
    return pages


def _row(found: FleetReading, name: str, shown: FleetPage) -> tuple[str, float, float]:
    drawing = Drawing()

    def draw() -> str:
        values = {"view": found, "actions": True, "token": "0" * 64}
        return drawing.draw(shown.template, **values, **shown.values)

    size = len(draw().encode()) / 1000
    return name, _milliseconds(draw), size


def _milliseconds(work: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        times.append(1000 * (time.process_time() - began))
    return statistics.median(times)
