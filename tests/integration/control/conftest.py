"""Settings without hooks, and the store of a real server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelserver.fleet.sections import AlertsSection
from modelserver.settings import Settings
from modelserver.store import Store, connect
from tests.support.alerts import alert_settings
from tests.support.processes import ValkeyProcess


@pytest.fixture
def settings(valkey: ValkeyProcess, tmp_path: Path) -> Settings:
    return alert_settings(valkey, tmp_path, AlertsSection())


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    store = connect(settings)
    yield store
    store.client.close()
