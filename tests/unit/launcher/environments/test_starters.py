"""What engines' interpreters run of ours: starters and stand-ins."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from launcher.environments import (
    standins_path,
    starter,
)


def test_a_starter_hides_the_key_and_hands_it_on(tmp_path: Path) -> None:
    package = tmp_path / "sglang" / "cli"
    package.mkdir(parents=True)
    (package / "main.py").write_text(
        "import sys\n"
        "def main():\n"
        "    print(sys.argv[1:])\n"
        "    print(sys.argv[-1], file=sys.stderr)\n"
        "    return len(sys.argv[-1])\n"
    )
    environ = {"PYTHONPATH": str(tmp_path), "MODELSERVER_ENGINE_KEY": "sesame"}
    done = subprocess.run(
        [sys.executable, str(starter("sglang")), "serve", "--port", "1"],
        env=environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "['serve', '--port', '1', '--api-key', '***']\n"
    assert done.stderr == "***\n"
    assert done.returncode == len("sesame")


def test_standins_answer_cpu_kernels_only_and_refuse_to_be_called() -> None:
    code = (
        "import sgl_kernel; fused = sgl_kernel.rmsnorm_cpu\n"
        "try: fused()\n"
        "except NotImplementedError as error: print(error)\n"
        "print(hasattr(sgl_kernel, 'rmsnorm'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(standins_path()), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "sgl_kernel.rmsnorm_cpu" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(("fork", "method"), [("1", "fork"), ("0", "spawn")])
def test_engine_children_are_forked_only_where_asked_for(
    fork: str, method: str
) -> None:
    code = (
        "import multiprocessing as m; m.set_start_method('spawn', force=True);"
        "print(m.get_start_method())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            "PYTHONPATH": str(standins_path()),
            "PYTHONDONTWRITEBYTECODE": "1",
            "MODELSERVER_ENGINE_FORK": fork,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == method
