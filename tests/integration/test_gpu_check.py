"""``make gpu-check`` on a stub of NVML, with the test engine in SGLang's place."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from launcher.gpus import Inventory
from modelserver.inventory import Gpu
from tests.gpu_check import Findings, check
from tests.nvml import StubGpu, StubNvml, build
from tests.support import ROOT, carriers

#: Takes the arguments of ``sglang serve`` and runs the test engine by them.
STAND_IN = """#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in --port) port=$2;; --served-model-name) model=$2;; esac
  shift
done
exec {python} -m tests.engine.server --port $port --model $model \\
  --key-env MODELSERVER_ENGINE_KEY
"""


@contextmanager
def engines_hold(stub: StubNvml, gib: float, mark: str) -> Iterator[None]:
    """While this is open, processes of the engine hold memory of the first GPU."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.2):
            found = carriers("MODELSERVER_TEST_MARK", mark)
            pids = [p.pid for p in found if "tests.engine.server" in p.cmdline()]
            stub.gpus[0].processes = dict.fromkeys(pids, gib)
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
    stub = StubNvml(build(tmp_path / "nvml"), tmp_path / "gpus", [StubGpu("GPU-0")])
    for name, value in stub.write().environment.items():
        monkeypatch.setenv(name, value)
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN.format(python=sys.executable))
    stand_in.chmod(0o755)
    keys = {"engine": "sglang", "path": str(tmp_path), "interpreter": str(stand_in)}
    folder, findings = tmp_path / "run", Findings()
    folder.mkdir()
    with engines_hold(stub, 70, str(folder)):
        gpus = (Gpu(0, "GPU-0"),)
        check(findings, folder, gpus, {**keys, "command": []})
    assert {what: fact for what, ok, fact in findings.rows if not ok} == {
        # The stand-in's log says nothing.
        "steps of the start told": "none"
    }
    facts = {what: fact for what, _, fact in findings.rows}
    assert "--mem-fraction-static 0.88" in facts["some memory stays free"]
    assert "holds 70 GiB" in facts["some memory stays free"]
    assert "gpu 0 has engine checked-0" in facts["reason of one that waits"]
    assert "| one request | yes | 128 tokens in" in findings.table()


def test_a_machine_without_a_gpu_is_told_so() -> None:
    if Inventory().read():
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
