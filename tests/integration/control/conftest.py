"""Settings without hooks, and the store of a real server."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelserver.fleet.sections import AlertsSection
from modelserver.settings import Settings
from modelserver.store import Store, connect
from tests.support.alerts import alert_settings
from tests.support.processes import ValkeyProcess
from tests.support.workers import PATIENCE


@pytest.fixture
def settings(valkey: ValkeyProcess, tmp_path: Path) -> Settings:
    return alert_settings(valkey, tmp_path, AlertsSection())


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    """The store; calls of hooks that a test leaves behind end before its server."""
    store = connect(settings)
    yield store
    for thread in threading.enumerate():
        if thread.name == "alert":
            thread.join(PATIENCE)
    store.client.close()
