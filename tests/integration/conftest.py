"""A fleet whose worker and engines the tests of a module share."""

from collections.abc import Iterator

import pytest

from tests.support.shared_fleet import open_shared_fleet, restore
from tests.support.workers import FleetSite


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetSite]:
    """One worker and an engine for each of three models, for the whole module."""
    with open_shared_fleet(tmp_path_factory.mktemp("fleet")) as site:
        yield site


@pytest.fixture
def fleet(site: FleetSite) -> Iterator[FleetSite]:
    """The module's fleet: its engines healthy and ready, nothing queued or held."""
    yield site
    restore(site)
