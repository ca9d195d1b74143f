"""A fleet with one engine that takes its time, shared by the tests of a module."""

from collections.abc import Iterator

import pytest

from tests.support.processes import ValkeyProcess, eventually
from tests.support.workers import PATIENCE, FleetSite, open_fleet


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetSite]:
    """One worker, and an engine that takes 20 ms for a request."""
    folder = tmp_path_factory.mktemp("fleet")
    valkey = ValkeyProcess(folder).start()
    with open_fleet(folder, valkey.url) as site:
        site.engine("writer-0", "--latency", "0.02")
        site.worker()
        yield site
    valkey.stop()


@pytest.fixture
def fleet(site: FleetSite) -> Iterator[FleetSite]:
    """The module's fleet: its engine healthy, nothing held."""
    yield site
    site.engines["writer-0"].fault()
    eventually(lambda: not site.held(), PATIENCE)
