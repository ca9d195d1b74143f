"""``make gpu-check`` on a stub of NVML, with the test engine in SGLang's place."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from launcher.host.gpus import GpuInventory
from modelserver.inventory import GIB, Gpu
from tests.gpu_check.findings import Findings
from tests.gpu_check.promises import check
from tests.nvml import StubGpu, StubNvml, build
from tests.support.processes import ROOT, carriers

#: Takes the arguments of ``sglang serve`` and runs the test engine by them; with ``-c``
#: it stands for a program that no launcher started.
STAND_IN = """#!/bin/sh
if [ "$1" = -c ]; then
  exec {python} -c 'import sys; print("holds", flush=True); sys.stdin.read()' stranger
fi
while [ $# -gt 0 ]; do
  case $1 in --port) port=$2;; --served-model-name) model=$2;; esac
  shift
done
exec {python} -m tests.engine.server --port $port --model $model \\
  --key-env MODELSERVER_ENGINE_KEY
"""
#: What each of them holds of the GPU, in GiB, by a word of its command.
HELD = {"stranger": 32, "beside": 22, "checked": 70}


@contextmanager
def memory_is_held(stub: StubNvml, mark: str) -> Iterator[None]:
    """While this is open, programs with this mark hold memory of the first GPU."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.2):
            held = {}
            for program in carriers("LC_MODELSERVER_TEST_MARK", mark):
                with suppress(psutil.Error):
                    words = program.cmdline()
                    shares = (gib for word, gib in HELD.items() if word in words)
                    held[program.pid] = next(shares, 0)
            stub.gpus[0].processes = {pid: gib for pid, gib in held.items() if gib}
            stub.write()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_every_promise_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Launchers of other tests beside this one have GPUs of their own.
    uuid = f"GPU-check-{os.getpid()}"
    stub = StubNvml(build(tmp_path / "nvml"), tmp_path / "gpus", [StubGpu(uuid)])
    for name, value in stub.write().environment.items():
        monkeypatch.setenv(name, value)
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN.format(python=sys.executable))
    stand_in.chmod(0o755)
    keys = {"engine": "sglang", "path": str(tmp_path), "interpreter": str(stand_in)}
    folder, findings = tmp_path / "run", Findings()
    folder.mkdir()
    with memory_is_held(stub, str(folder)):
        gpus = (Gpu(0, uuid, total=80 * GIB),)
        check(findings, folder, gpus, {**keys, "command": []})
    assert {what: fact for what, ok, fact in findings.rows if not ok} == {
        # The stand-in's log says nothing.
        "beside-0: steps of the start told": "none",
        "checked-0: steps of the start told": "none",
    }
    facts = {what: fact for what, _, fact in findings.rows}
    assert "32 GiB held by pid " in facts["a stranger's GPU is not taken"]
    told = facts["beside-0: takes no more than promised"]
    assert "--mem-fraction-static 0.44" in told
    assert "holds 22 GiB, 28% of it, promised 24 GiB" in told
    told = facts["checked-0: some memory stays free"]
    assert "--mem-fraction-static 0.88" in told
    assert "holds 70 GiB" in told
    assert "gpu 0 has engine checked-0" in facts["reason of one that waits"]
    assert " 0 of 1 processes left" in facts["killed"]
    assert "| one request | yes | 128 tokens in" in findings.table()


def test_a_machine_without_a_gpu_is_told_so() -> None:
    if GpuInventory().read():
        pytest.skip("this machine has a GPU")
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu_check"],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "this machine has no GPU that can be used" in done.stdout
