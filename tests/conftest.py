"""Fixtures that tests of several floors share, and which tests go together."""

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let a file's tests run in one process, and all with real engines in the same.

    Files share servers and workers; two sets of real engines would be too much for two
    cores.
    """
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        group = folder if folder == "acceptance" else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
