"""``python -m tests.nvml.reader``: a reading of the GPUs for each line on stdin.

Arguments are engines of this host, ID=PID, and --alone for a launcher that does not see
the host's processes. ``Reader`` is the process and its lines.
"""

import dataclasses
import json
import os
import subprocess
import sys
from types import TracebackType
from typing import Self

import psutil

from launcher.host.gpus import GpuInventory
from launcher.host.process import Identity
from launcher.host.process_owners import ProcessOwners
from modelserver.inventory import Gpu, Host
from modelserver.store.fleet.hosts import decode_host
from tests.nvml import StubNvml


class Reader:
    """One inventory in a process of its own, with the stub as its NVML."""

    def __init__(self, stub: StubNvml, sees_all: bool = True, **engines: int) -> None:
        named = [f"{engine}={pid}" for engine, pid in engines.items()]
        alone = [] if sees_all else ["--alone"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.nvml.reader", *alone, *named],
            env={**os.environ, **stub.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate(timeout=10)

    def host(self) -> Host:
        """One reading; its driver is the inventory's."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return decode_host(self._process.stdout.readline())

    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs of one reading."""
        return self.host().gpus


def main() -> None:
    """Read whenever asked, until stdin ends."""
    sees_all = "--alone" not in sys.argv
    words = [word.partition("=") for word in sys.argv[1:] if word != "--alone"]
    pids = {engine: int(pid) for engine, _, pid in words}
    engines = [
        (engine, Identity(pid, psutil.Process(pid).create_time(), "no mark"))
        for engine, pid in pids.items()
    ]
    inventory = GpuInventory(ProcessOwners(lambda: engines, sees_all))
    for _ in sys.stdin:
        gpus = inventory.read()
        host = Host("h", gpus, driver=inventory.driver)
        print(json.dumps(dataclasses.asdict(host)), flush=True)


if __name__ == "__main__":
    main()
