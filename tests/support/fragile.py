"""A launcher, a worker and an engine that dies of a certain prompt."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelserver.store.fleet.control import hold_control, report_steered, write_wishes
from modelserver.values import EngineSpec, Wish
from tests.support.processes import ROOT, LauncherProcess
from tests.support.workers import HOST, FleetSite, open_fleet


@contextmanager
def open_fragile_fleet(
    folder: Path, url: str, poison: str, latency: str, places: str = "64"
) -> Iterator[FleetSite]:
    """Its engine ``fragile-0`` is started again by the launcher.

    It dies of a prompt with ``poison`` in it, answers in ``latency`` seconds and takes
    ``places`` requests at once.
    """
    fragile = f"""
[[models]]
name = "fragile"
engine = "command"
command = [
    "{sys.executable}", "{ROOT}/tests/engine/server.py", "--port", "{{port}}",
    "--model", "{{model}}", "--latency", "{latency}", "--poison", "{poison}",
]
max_running = {places}
"""
    with open_fleet(folder, url, fragile) as site:
        spec = EngineSpec(id="fragile-0", model="fragile", host=HOST)
        with hold_control(site.store, "test", 60) as token:
            write_wishes(site.store, token, {spec.id: Wish(spec, token=token)})
            report_steered(site.store, "test")
        launcher = LauncherProcess(folder, site.environment)
        try:
            site.worker()
            yield site
        finally:
            launcher.signal(signal.SIGTERM)
            launcher.wait()
