"""``modelserver demo``: the main job with an engine killed half-way, as a process."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.product import borrowed_home, clean_environment
from tests.support.processes import ROOT, carriers, end, eventually

pytestmark = pytest.mark.sglang

#: How long the demo may take, in seconds; alone on the machine it takes 30 to 60.
DEMO_SECONDS = 240.0
CLOSING = re.compile(
    r"^sent 450, answered 450, failed 0, answered twice 0, "
    r"seconds from kill to ready again \d+\.\d$"
)


def test_the_demo_answers_all_and_leaves_nothing_behind(
    home: Path, tmp_path: Path
) -> None:
    own = str(borrowed_home(tmp_path, home))
    log = tmp_path / "demo.log"
    with log.open("wb") as output:
        demo = subprocess.Popen(
            [sys.executable, "-m", "modelserver.cli", "demo"],
            cwd=ROOT,
            env=clean_environment(MODELSERVER_HOME=own),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        # Server, launcher, worker, beat and Flower, and later the engines.
        eventually(lambda: len(carriers("MODELSERVER_HOME", own)) > 5, DEMO_SECONDS)
        code = demo.wait(DEMO_SECONDS)
    finally:
        end(demo)
        left = carriers("MODELSERVER_HOME", own)
        for process in left:
            process.kill()
    said = log.read_text()
    assert code == 0, said
    assert CLOSING.match(said.splitlines()[-1]), said
    assert "half-way: killed engine demo-chat-0" in said
    assert "half-way: killed the command" in said
    assert "rows 60, answered 60, twice 0, lost 0, asked again 0" in said
    assert "Processes left behind: 0." in said
    assert left == []
