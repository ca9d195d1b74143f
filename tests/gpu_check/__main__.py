"""``python -m tests.gpu_check [ENGINE]``: what is promised of GPUs, on this machine's.

Installs the engine where it is not there (14 GB), starts it with random weights on a
GPU under a real launcher, worker and control, and prints a report to be kept. Nothing
of it stays behind but the engine's environment. Exit status 1 where a promise is not
kept, 2 where there is no GPU.
"""

import json
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from launcher import environments
from launcher.gpus import Inventory
from modelserver.inventory import Gpu, gib
from modelserver.settings import load
from tests.fleet_support import CLI
from tests.gpu_check.findings import Findings
from tests.gpu_check.promises import check

ENGINES = ("sglang", "vllm")
#: Of attention heads that every kernel knows; 0.3 GB of weights in half precision.
CONFIG = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "num_hidden_layers": 8,
    "head_dim": 128,
    "layer_types": ["full_attention"] * 8,
    "dtype": "bfloat16",
}


def main(argv: list[str]) -> int:
    """Check one engine, or say why not; returns the exit status.

    What follows the engine's name are arguments for the engine itself.
    """
    name, *extra = argv or ENGINES[:1]
    kind = name.partition("==")[0]
    if kind not in ENGINES:
        print(f'no engine "{name}" for GPUs; there are: {", ".join(ENGINES)}')
        return 2
    inventory = Inventory()
    gpus = inventory.read()
    if not gpus:
        print(f"this machine has no GPU that can be used: {inventory.driver}")
        return 2
    home = load().home
    if not environments.is_installed(name, home):
        subprocess.run([*CLI, "engines", "install", name], check=True)
    python = environments.interpreter(name, home)
    environments.ensure_tiny_models(python, home / "models")
    findings = Findings()
    look_at_gpus(findings, gpus, inventory.driver)
    with tempfile.TemporaryDirectory(prefix="modelserver-gpu-check-") as folder:
        weights = write_weights(home / "models" / "tiny-chat", Path(folder) / "weights")
        keys = {"engine": kind, "interpreter": str(python), "path": str(weights)}
        keys |= {"command": [], "extra_args": ["--load-format", "dummy", *extra]}
        check(findings, Path(folder), gpus, {**keys, "context_length": 4096})
    version = environments.environment_path(name, home).name
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


def write_weights(tiny: Path, folder: Path) -> Path:
    """A model's folder without weights, which the engine makes up."""
    folder.mkdir()
    for file in tiny.iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((tiny / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | CONFIG))
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
