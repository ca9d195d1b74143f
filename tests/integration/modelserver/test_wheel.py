"""The wheel in an empty environment, beside a ``tasks.py`` that is not ours."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelserver.store.workers import read_workers
from tests.engine.openai_api import answer_text
from tests.support.processes import ROOT, ValkeyProcess, end, eventually
from tests.support.workers import HOST, PATIENCE, open_fleet

#: Building and installing take long on a machine without a cache of packages.
INSTALL_SECONDS = 280

ASK = """
from modelserver import complete
print(complete.delay("from a wheel").get(timeout=60))
"""


def run(*command: str, cwd: Path, **environment: str) -> str:
    """Run a program to its end; its output is the failure's message."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The interpreter of an environment that holds the wheel and what it needs."""
    uv = Path(sys.executable).with_name("uv")
    wheels, venv = tmp_path / "wheels", tmp_path / "venv"
    run(str(uv), "build", "--wheel", "--out-dir", str(wheels), cwd=ROOT)
    (wheel,) = wheels.glob("modelserver-*.whl")
    run(str(uv), "venv", "--python", sys.executable, str(venv), cwd=tmp_path)
    python = venv / "bin" / "python"
    run(str(uv), "pip", "install", "--python", str(python), str(wheel), cwd=tmp_path)
    return python


@pytest.mark.timeout(600)
def test_the_wheel_serves_a_folder_with_a_tasks_module_of_its_own(
    python: Path, valkey: ValkeyProcess, tmp_path: Path
):
    folder = tmp_path / "pipeline"
    folder.mkdir()
    (folder / "tasks.py").write_text('raise RuntimeError("somebody else\'s tasks")\n')
    with open_fleet(folder, valkey.url) as fleet:
        fleet.engine("writer-0")
        environment = fleet.environment | {"PYTHONPATH": ""}
        log = (folder / "worker.log").open("wb")
        worker = subprocess.Popen(
            [str(python.with_name("modelserver")), "worker", "--loglevel", "INFO"],
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            eventually(lambda: len(read_workers(fleet.store)) == 1, PATIENCE)
            said = run(str(python), "-c", ASK, cwd=folder, MODELSERVER_HOST=HOST)
        finally:
            end(worker)
            log.close()
    assert said.strip() == answer_text("from a wheel")
    packages = python.parent.parent / "lib"
    (site,) = packages.glob("python*/site-packages")
    ours = {path.name for path in site.iterdir()}
    assert not {"tasks", "workers", "launcher", "celeryconfig.py"} & ours
    assert (site / "modelserver" / "launcher" / "environments" / "standins").is_dir()
