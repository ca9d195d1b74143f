"""Fetches the tests of the installed Celery and runs them, in a folder that goes."""

import os
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.report import RESULTS
from tests.celerys_own import plugin
from tests.celerys_own.expected import Outcome
from tests.support import ValkeyProcess, end

#: Those of Celery's integration tests that need a worker, a broker and a backend.
SELECTED = ("tasks", "inspect", "canvas", "redis_backend", "group_chains")
#: The limit of one test and of a whole run, in seconds. Generous: waits of Celery's
#: tests end by themselves after a minute, but a busy machine is slow.
TEST_SECONDS = 300
RUN_SECONDS = 3600
FETCH_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Suite:
    """Celery's tests in a folder; ``run`` runs some on a server of its own."""

    folder: Path

    def run(
        self, pool: str, tests: Sequence[str], log: str
    ) -> tuple[Sequence[str], dict[str, Outcome]]:
        """The selected tests, and the outcomes of those that ran within the time.

        Raises RuntimeError where pytest could not collect them. ``log`` names the file
        in the results' folder that gets what pytest says.
        """
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            folder, record = Path(name), Path(name) / "record"
            server = ValkeyProcess(folder).start()
            RESULTS.mkdir(exist_ok=True)
            path = RESULTS / f"{log}.log"
            try:
                with path.open("wb") as stream:
                    status = self._pytest(
                        [f"--worker-pool={pool}", f"--record={record}", *tests],
                        self._environment(folder, server),
                        stream.fileno(),
                    )
            finally:
                server.stop()
            # 0: all passed, 1: some failed, 2: ended, for the time was over.
            if status not in (0, 1, 2) or not record.exists():
                raise RuntimeError(f"pytest ended with {status}; it says why in {path}")
            return plugin.read(record)

    def _pytest(
        self, arguments: Sequence[str], environment: dict[str, str], log: int
    ) -> int:
        command = [
            *(sys.executable, "-P", "-m", "pytest", "-v", "--tb=short"),
            *("-p", plugin.__name__, "-p", "celery.contrib.pytest"),
            *("-p", "no:cacheprovider", f"--timeout={TEST_SECONDS}"),
        ]
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            return process.wait(RUN_SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            return 2
        finally:
            end(process)

    def _environment(self, folder: Path, server: ValkeyProcess) -> dict[str, str]:
        fleet = folder / "fleet.toml"
        # The tests look at keys by the names that Celery gives them.
        fleet.write_text(f'[redis]\nurl = "{server.url}"\nprefix = ""\n')
        return {
            **os.environ,
            "MODELSERVER_FLEET": str(fleet),
            "MODELSERVER_HOME": str(folder),
            "TEST_BROKER": server.url,
            "TEST_BACKEND": server.url,
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(server.port),
        }


@contextmanager
def fetched() -> Iterator[Suite]:
    """The tests of the installed version, from its source distribution."""
    release = version("celery")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"Fetching the source of Celery {release} (2 MB) for its tests")
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                *("--disable-pip-version-check", "--no-binary", "celery"),
                *("--dest", name, f"celery=={release}"),
            ],
            check=True,
            timeout=FETCH_SECONDS,
        )
        head = f"celery-{release}"
        with tarfile.open(folder / f"{head}.tar.gz") as archive:
            # Not its package: the installed one is to be tested.
            wanted = [
                member
                for member in archive.getmembers()
                if member.name.startswith(f"{head}/t/")
                or member.name == f"{head}/pyproject.toml"
            ]
            archive.extractall(folder, wanted, filter="data")
        yield Suite(folder / head)
