"""The wheel in an empty environment, beside a ``tasks.py`` that is not ours."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelserver.store.fleet.workers import read_workers
from tests.clients.environments import build_wheel, install
from tests.engine.openai_api import answer_text
from tests.support.processes import ValkeyProcess, end, eventually
from tests.support.workers import HOST, PATIENCE, open_fleet

ASK = """
from modelserver import complete
print(complete.delay("from a wheel").get(timeout=60))
"""


@pytest.mark.timeout(600)
def test_the_wheel_serves_a_folder_with_a_tasks_module_of_its_own(
    valkey: ValkeyProcess, tmp_path: Path
):
    wheel, here = build_wheel(tmp_path / "wheels"), Path(sys.executable)
    host = install(f"{wheel}[host]", tmp_path / "host", here)
    client = install(str(wheel), tmp_path / "client", here)
    folder = tmp_path / "pipeline"
    folder.mkdir()
    (folder / "tasks.py").write_text('raise RuntimeError("somebody else\'s tasks")\n')
    with open_fleet(folder, valkey.url) as fleet:
        fleet.engine("writer-0")
        environment = fleet.environment | {"PYTHONPATH": ""}
        log = (folder / "worker.log").open("wb")
        worker = subprocess.Popen(
            [str(host.python.with_name("modelserver")), "worker", "--loglevel", "INFO"],
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            eventually(lambda: len(read_workers(fleet.store)) == 1, PATIENCE)
            said = client.run("-c", ASK, cwd=folder, MODELSERVER_HOST=HOST)
        finally:
            end(worker)
            log.close()
    assert said.strip() == answer_text("from a wheel")
    ours = {path.name for path in host.site.iterdir()}
    assert not {"tasks", "workers", "launcher", "celeryconfig.py"} & ours
    assert (
        host.site / "modelserver" / "launcher" / "environments" / "standins"
    ).is_dir()
