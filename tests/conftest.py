"""Fixtures that tests of several floors share, and which tests go together."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.support.processes import ValkeyProcess


def pytest_configure() -> None:
    """Heed Ctrl-C, also where a shell runs the tests in its background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyProcess]:
    """A real server of one test's own, without data."""
    folder = tmp_path / "valkey"
    folder.mkdir()
    server = ValkeyProcess(folder).start()
    yield server
    server.stop()


class FileScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """A file's tests run in one process, and all with real engines in the same.

    Files share servers and workers; two sets of real engines would be too much for two
    cores. Scenarios share nothing and take long.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file.startswith("tests/scenarios/"):
            return nodeid
        return "acceptance" if file.startswith("tests/acceptance/") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling:
    """The above, for tests that run in several processes."""
    return FileScheduling(config, log)
