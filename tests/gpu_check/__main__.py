"""``python -m tests.gpu_check [ENGINE]``: what is promised of GPUs, on this machine's.

Installs the engine where it is not there (14 GB), starts it with random weights on a
GPU under a real launcher, worker and control, and prints a report to be kept. Nothing
of it stays behind but the engine's environment. Exit status 1 where a promise is not
kept, 2 where there is no GPU.
"""

import platform
import shlex
import sys
import tempfile
import time
from pathlib import Path

from launcher import environments
from launcher.host.gpus import GpuInventory
from modelserver.inventory import Gpu, gib
from modelserver.settings import load
from tests.gpu_check.engine import ENGINES, made_up_model
from tests.gpu_check.findings import Findings
from tests.gpu_check.promises import check


def main(argv: list[str]) -> int:
    """Check one engine, or say why not; returns the exit status.

    What follows the engine's name are arguments for the engine itself.
    """
    name, *extra = argv or ENGINES[:1]
    if name.partition("==")[0] not in ENGINES:
        print(f'no engine "{name}" for GPUs; there are: {", ".join(ENGINES)}')
        return 2
    inventory = GpuInventory()
    gpus = inventory.read()
    if not gpus:
        print(f"this machine has no GPU that can be used: {inventory.driver}")
        return 2
    findings = Findings()
    look_at_gpus(findings, gpus, inventory.driver)
    with tempfile.TemporaryDirectory(prefix="modelserver-gpu-check-") as folder:
        keys = made_up_model(name, extra, Path(folder) / "weights")
        check(findings, Path(folder), gpus, keys)
    version = environments.environment_path(name, load().home).name
    print(f"\n{version}, {platform.platform()}, {time.strftime('%Y-%m-%d')}")
    if extra:
        print(f"with {shlex.join(extra)}")
    print(f"\n{findings.table()}")
    return int(not all(ok for _, ok, _ in findings.rows))


def look_at_gpus(findings: Findings, gpus: tuple[Gpu, ...], driver: str) -> None:
    """The inventory, field by field."""
    for gpu in gpus:
        fact = (
            f"{gpu.name}, {gib(gpu.free)} of {gib(gpu.total)} free, "
            f"{gpu.temperature} °C, {gpu.power_watts} W, driver {driver}"
        )
        if gpu.missing:
            fact += f"; not told: {dict(gpu.missing)}"
        findings.add(gpu.label, bool(gpu.uuid and gpu.total and not gpu.fault), fact)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
