"""Reads this host every second in a thread: its GPUs and the use of its processors."""

import logging
import threading
import time
from dataclasses import replace

import psutil

from launcher.host.gpus import GpuInventory
from launcher.host.troubles import HostTroubles
from modelserver.inventory import Host

_log = logging.getLogger(__name__)

#: Seconds between two readings of the GPUs.
GPU_READ_SECONDS = 1.0
#: Seconds over which the use of the processors is averaged.
BUSY_MEAN_SECONDS = 30.0
#: Seconds after the last reading from which the driver counts as hanging.
STALE_READING_SECONDS = 10.0


class HostWatch:
    """The newest reading, for the report of the host. Never waits for the driver."""

    def __init__(
        self, host: Host, inventory: GpuInventory, troubles: HostTroubles
    ) -> None:
        self._host = host
        self._inventory = inventory
        self._troubles = troubles
        self._read_at = time.monotonic()
        self._first = threading.Event()
        self._closing = threading.Event()
        self._bad: dict[str, str] = {}

    def start(self) -> None:
        """Read from now on."""
        psutil.cpu_percent()  # The next call tells the use since this one.
        threading.Thread(target=self._run, name="gpus", daemon=True).start()

    def wait_for_first(self, seconds: float = STALE_READING_SECONDS) -> None:
        """Return at the first reading, or after so many seconds without one."""
        self._first.wait(seconds)

    def close(self) -> None:
        """Read no more."""
        self._closing.set()

    def host(self) -> Host:
        """The host with its GPUs, which are faulty while the driver hangs."""
        age = time.monotonic() - self._read_at
        host = self._host
        if age < STALE_READING_SECONDS:
            return host
        fault = f"the driver has not answered for {age:.0f} s"
        gpus = tuple(replace(gpu, fault=gpu.fault or fault) for gpu in host.gpus)
        return replace(host, gpus=gpus, driver=fault)

    def _run(self) -> None:
        while not self._closing.is_set():
            with self._troubles.guard("host", "read the use of its processors"):
                self._look_at_processors()
            # The engines go on; the GPUs count as silent until a reading works.
            with self._troubles.guard("host", "read its GPUs"):
                self._look_at_gpus()
            self._closing.wait(GPU_READ_SECONDS)

    def _look_at_gpus(self) -> None:
        gpus = self._inventory.read()
        driver = self._inventory.driver
        self._host = replace(self._host, gpus=gpus, driver=driver)
        self._read_at = time.monotonic()
        self._log_changes()
        self._first.set()

    def _look_at_processors(self) -> None:
        busy = self._host.busy
        busy += (
            (psutil.cpu_percent() / 100 - busy) * GPU_READ_SECONDS / BUSY_MEAN_SECONDS
        )
        self._host = replace(self._host, busy=busy)

    def _log_changes(self) -> None:
        """Log what became faulty, and what is well again."""
        bad = {gpu.uuid: gpu.fault for gpu in self._host.gpus if gpu.fault}
        if bad != self._bad:
            labels = {gpu.uuid: gpu.label for gpu in self._host.gpus}
            for uuid in bad.keys() - self._bad.keys():
                _log.warning("%s uuid=%s faulty: %s", labels[uuid], uuid, bad[uuid])
            for uuid in self._bad.keys() - bad.keys():
                _log.info("%s uuid=%s is well", labels.get(uuid, "gpu"), uuid)
        self._bad = bad
