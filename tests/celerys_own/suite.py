"""Fetches the tests of the installed Celery and runs them, in a folder that goes."""

import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.report import RESULTS
from tests.celerys_own import plugin
from tests.celerys_own.expected import Outcome
from tests.support.processes import ValkeyProcess, end

#: Those of Celery's integration tests that need a worker, a broker and a backend.
SELECTED = {
    "canvas": ("t/integration/test_canvas.py",),
    "tasks": ("t/integration/test_tasks.py", "t/integration/test_redis_backend.py"),
    "rest": ("t/integration/test_inspect.py", "t/integration/test_group_chains.py"),
}
#: The limit of one test and of a whole run, in seconds. Generous: waits of Celery's
#: tests end by themselves after a minute, but a busy machine is slow.
TEST_SECONDS = 300
RUN_SECONDS = 3600
FETCH_SECONDS = 300
PYTEST = (
    # Tracebacks by Python: pytest's own parse sources, and stumble over the worker's
    # thread, which may do so at the same moment.
    *(sys.executable, "-P", "-m", "pytest", "-v", "--tb=native"),
    *("-p", plugin.__name__, "-p", "celery.contrib.pytest"),
    *("-p", "no:cacheprovider", f"--timeout={TEST_SECONDS}"),
)


@dataclass(frozen=True, slots=True)
class Suite:
    """Celery's tests in a folder."""

    folder: Path

    def run(
        self,
        pool: str,
        batches: Mapping[str, Sequence[str]],
        within: float = RUN_SECONDS,
    ) -> tuple[list[str], dict[str, Outcome]]:
        """The selected tests, and outcomes of those that ran within these seconds.

        The batches run beside each other, each with a worker and a server of its own:
        they mostly wait. Raises RuntimeError where pytest could not collect them.
        """
        selected: list[str] = []
        outcomes: dict[str, Outcome] = {}
        until = time.monotonic() + within
        with ExitStack() as stack:
            batch = [
                stack.enter_context(self._started(pool, name, arguments))
                for name, arguments in batches.items()
            ]
            for run in batch:
                more, found = run.finish(until)
                selected += more
                outcomes |= found
        return selected, outcomes

    @contextmanager
    def _started(
        self, pool: str, name: str, arguments: Sequence[str]
    ) -> "Iterator[_Run]":
        RESULTS.mkdir(exist_ok=True)
        log = RESULTS / f"celery-{name}.log"
        with (
            tempfile.TemporaryDirectory(dir=self.folder) as folder,
            ExitStack() as ends,
        ):
            record = Path(folder) / "record"
            server = ValkeyProcess(Path(folder)).start()
            ends.callback(server.stop)
            stream = ends.enter_context(log.open("wb"))
            process = subprocess.Popen(
                [*PYTEST, f"--worker-pool={pool}", f"--record={record}", *arguments],
                cwd=self.folder,
                env=_environment(Path(folder), server),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )
            ends.callback(end, process)
            yield _Run(process, record, log)


@dataclass(frozen=True, slots=True)
class _Run:
    """pytest at work."""

    process: "subprocess.Popen[bytes]"
    record: Path
    log: Path

    def finish(self, until: float) -> tuple[Sequence[str], dict[str, Outcome]]:
        """Wait for its end, on the monotonic clock, and read what it found."""
        try:
            status = self.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            end(self.process)
            return plugin.read(self.record)
        # 0: all passed, 1: some failed.
        if status not in (0, 1):
            raise RuntimeError(f"pytest ended with {status}; {self.log} says why")
        return plugin.read(self.record)


def _environment(folder: Path, server: ValkeyProcess) -> dict[str, str]:
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
        # As in Celery's own runs: some tests read what the worker logs.
        "WORKER_LOGLEVEL": "INFO",
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
