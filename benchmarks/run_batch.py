"""``vllm run-batch`` and ``modelserver batch run`` on the same file, side by side."""

import json
import os
import random
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.engine_bound import IN_FLIGHT, MODEL, SAMPLING, ready_engine, stack
from benchmarks.report import Goal, Report
from launcher.engine_types.base import Place
from launcher.engine_types.vllm import VLLMCPU
from modelserver import settings as settings_module
from modelserver.fleet.file import read_fleet
from modelserver.settings import Settings
from tests.support.batch_files import batch_command, batch_line, names, write_lines

ROWS = int(os.environ.get("RUN_ROWS", "512"))
ROUNDS = 3
#: Fewest and most tokens of the answers.
LENGTHS = (32, 96)
#: The same engine: started by the launcher for one, by the command for the other.
FLEET = f"""
[[models]]
name = "{MODEL}"
path = "builtin:tiny-chat"
engine = "vllm-cpu"
context_length = 4096
max_running = {IN_FLIGHT}
"""
#: Flags of the server that its batch command does not have: how many words each is.
SERVER_FLAGS = {"--host": 2, "--port": 2, "--disable-uvicorn-access-log": 1}


@dataclass(frozen=True, slots=True)
class Timed:
    """One run of a file."""

    #: From the command's start to its end.
    seconds: float
    #: Rows that were answered.
    answered: int
    stdout: str
    stderr: str


def run_batch_beside() -> Report:
    """One file by `vllm run-batch` and by `modelserver batch run`: rows a second.

    The engine is vLLM on the CPU with a tiny model and the same flags. vLLM's command
    has it in its own process and cannot ask one that runs. Both rates are what the
    commands themselves say, without their start. Each round has prompts of its own.
    """
    theirs, ours = [], []
    with _folder() as folder:
        argv, variables = _vllm(folder)
        for number in range(ROUNDS):
            theirs.append(_theirs(argv, variables, folder, f"theirs {number}", ROWS))
        with stack(FLEET) as settings:
            ready_engine(settings)
            _ours(settings, folder, "warm", IN_FLIGHT)
            for number in range(ROUNDS):
                ours.append(_ours(settings, folder, f"ours {number}", ROWS))
    own = [json.loads(each.stdout)["requests_per_second"] for each in ours]
    peer = [_rate(each.stderr) for each in theirs]
    rows = (
        ("modelserver batch run", _seconds(ours), *_figures(own), _least(ours)),
        ("vllm run-batch", _seconds(theirs), *_figures(peer), _least(theirs)),
    )
    ratio = statistics.median(own) / statistics.median(peer)
    return Report(
        ("command", "seconds in all", "rows/s", "least", "most", "answered"),
        rows,
        (Goal("run-batch rows/s over vllm run-batch", ratio, 0.95),),
        (f"{ROWS} rows; an engine takes {IN_FLIGHT} at once; medians of {ROUNDS}",),
    )


def _rate(said: str) -> float:
    """Rows a second by the last state of vLLM's bar.

    >>> _rate("Running batch: 100% Completed | 8/8 [00:02<00:00,  4.10req/s]")
    4.1
    """
    number, unit = re.findall(r"([\d.]+)(req/s|s/req)", said)[-1]
    return float(number) if unit == "req/s" else 1 / float(number)


def _seconds(runs: list[Timed]) -> float:
    return statistics.median(each.seconds for each in runs)


def _figures(rates: list[float]) -> tuple[float, float, float]:
    return statistics.median(rates), min(rates), max(rates)


def _least(runs: list[Timed]) -> int:
    return min(each.answered for each in runs)


@contextmanager
def _folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="modelserver-bench-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _vllm(folder: Path) -> tuple[list[str], dict[str, str]]:
    """vLLM's batch command with the flags of the launcher's server, without files."""
    path = folder / "fleet.toml"
    path.write_text(FLEET)
    (model,) = read_fleet(path).specs()
    home, adapter = settings_module.load().home, VLLMCPU()
    adapter.prepare(model, home)
    launch = adapter.launch(model, Place(port=0), home)
    argv = [
        word.replace("openai.api_server", "openai.run_batch") for word in launch.argv
    ]
    for flag, words in SERVER_FLAGS.items():
        place = argv.index(flag)
        del argv[place : place + words]
    return argv, {**os.environ, **launch.environment}


def _file(folder: Path, name: str, rows: int) -> Path:
    draw = random.Random(name)

    def line(number: int) -> dict[str, Any]:
        body = SAMPLING | {"model": MODEL, "max_tokens": draw.randint(*LENGTHS)}
        return batch_line(f"row-{number}", f"{name} {number}: where is it?", **body)

    return write_lines(folder / f"{name}.jsonl", map(line, range(rows)))


def _theirs(
    argv: list[str], variables: Mapping[str, str], folder: Path, name: str, rows: int
) -> Timed:
    source, output = _file(folder, name, rows), folder / f"{name}.out.jsonl"
    return _timed([*argv, "-i", str(source), "-o", str(output)], variables, output)


def _ours(settings: Settings, folder: Path, name: str, rows: int) -> Timed:
    source, output = _file(folder, name, rows), folder / f"{name}.out.jsonl"
    own = {
        "MODELSERVER_FLEET": str(settings.fleet_file),
        "MODELSERVER_HOME": str(settings.home),
    }
    argv = batch_command(source, "-o", output, "--quiet", "--json")
    return _timed(argv, {**os.environ, **own}, output)


def _timed(argv: list[str], variables: Mapping[str, str], output: Path) -> Timed:
    began = time.monotonic()
    done = subprocess.run(
        argv, env=dict(variables), capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - began
    if done.returncode:
        raise RuntimeError(f"{argv}: {done.stdout[-2_000:]}{done.stderr[-2_000:]}")
    return Timed(seconds, len(names(output)), done.stdout, done.stderr)
