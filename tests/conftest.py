"""Fixtures that tests of several floors share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import ValkeyProcess


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyProcess]:
    """A real server of one test's own, without data."""
    folder = tmp_path / "valkey"
    folder.mkdir()
    server = ValkeyProcess(folder).start()
    yield server
    server.stop()
