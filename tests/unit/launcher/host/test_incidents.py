"""What is kept of a failing engine: complete, small, and without secrets."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import psutil

from launcher.engine_types import Launch
from launcher.host import process, process_dump
from launcher.host.incidents import EndedEngine, describe, prune
from launcher.host.process import EngineProcess, Identity
from launcher.host.process_dump import redact
from modelserver.operations.incidents import (
    INCIDENT_SUMMARY,
    INCIDENTS_FOLDER,
    read_incidents,
)
from modelserver.values import EngineSpec
from tests.support.processes import eventually

CASE = EndedEngine(
    spec=EngineSpec("org/m-0", "org/m", "h1"),
    host="h1",
    incarnation=4,
    state="READY",
    reason="killed by SIGKILL",
    process=Identity(123, 1700000000.25, "abc"),
    url="http://127.0.0.1:30000",
    log=Path("/x/m-0.log"),
    log_offset=0,
    started_at=1700000000.0,
    inflight=3,
)


def test_incident_is_named_by_time_engine_and_incarnation() -> None:
    incident = describe(CASE, now=1700000060.0)
    assert incident.id == "20231114T221420Z-org_m-0-4"
    assert (incident.engine, incident.inflight) == ("org/m-0", 3)


#: A time of 2027.
NOW = 1_800_000_000.0


def incident(run_dir: Path, name: str, size: int = 10) -> None:
    folder = run_dir / INCIDENTS_FOLDER / name
    folder.mkdir(parents=True)
    (folder / "log.txt").write_bytes(b"x" * size)


def test_oldest_incidents_go_when_they_are_too_many(tmp_path: Path) -> None:
    for number in range(5):
        incident(tmp_path, f"2026-{number}")
    prune(tmp_path / INCIDENTS_FOLDER, NOW, kept=3)
    left = sorted(each.name for each in (tmp_path / INCIDENTS_FOLDER).iterdir())
    assert left == ["2026-2", "2026-3", "2026-4"]


def test_incidents_of_a_clock_that_was_set_back_go_first(tmp_path: Path) -> None:
    """They would be the newest for years, and all that comes would go at once."""
    for name in ("2026-1", "2026-2", "2031-1", "2031-2"):
        incident(tmp_path, name)
    prune(tmp_path / INCIDENTS_FOLDER, NOW, kept=3)
    left = sorted(each.name for each in (tmp_path / INCIDENTS_FOLDER).iterdir())
    assert left == ["2026-1", "2026-2", "2031-2"]


def test_oldest_incidents_go_when_they_are_too_large(tmp_path: Path) -> None:
    for number in range(4):
        incident(tmp_path, f"2026-{number}", size=400)
    prune(tmp_path / INCIDENTS_FOLDER, NOW, kept_bytes=900)
    left = sorted(each.name for each in (tmp_path / INCIDENTS_FOLDER).iterdir())
    assert left == ["2026-2", "2026-3"]
    prune(tmp_path / INCIDENTS_FOLDER, NOW, kept_bytes=100)
    assert [each.name for each in (tmp_path / INCIDENTS_FOLDER).iterdir()] == ["2026-3"]


def test_damaged_summary_is_left_out_and_the_others_are_read(tmp_path: Path) -> None:
    summary = {"id": "b", "at": 2.0, "engine": "m-0", "model": "m", "host": "h1"}
    summary |= {"incarnation": 1, "state": "READY", "reason": "died", "later": 1}
    for name, text in (("a", "{"), ("b", json.dumps(summary)), ("c", "{}")):
        incident(tmp_path, name)
        (tmp_path / INCIDENTS_FOLDER / name / INCIDENT_SUMMARY).write_text(text)
    assert [each.id for each in read_incidents(tmp_path)] == ["b"]
    assert read_incidents(tmp_path / "none") == ()


def test_secrets_are_taken_out_of_command_lines_and_logs() -> None:
    for text in (
        "serve --api-key s3cret --port 1",
        "serve --admin-api-key=s3cret",
        "server_args={'api_key': 's3cret', 'port': 1}",
        "HF_TOKEN=s3cret python",
        "https://anna:s3cret@example.org/x",
        '"password": "s3cret"',
    ):
        assert "s3cret" not in redact(text), text
    harmless = "max_total_num_tokens=65536 #new-token: 1, token usage: 0.00"
    assert redact(harmless) == harmless


def run(tmp_path: Path, *argv: str) -> EngineProcess:
    unborn = process.new_identity()
    return process.start(Launch(argv), tmp_path / "log", "engine=a", unborn)


#: A program that says when it waits, and where it waits.
WAITS = "import time\ndef waits_for_ever(): print('up'); time.sleep(300)\n"


def test_tree_and_stacks_of_a_stopped_engine_are_told(tmp_path: Path) -> None:
    engine = run(
        tmp_path,
        sys.executable,
        "-c",
        WAITS + "waits_for_ever()",
        "--api-key",
        "s3cret",
    )
    eventually(lambda: "up" in (tmp_path / "log").read_text().splitlines())
    os.kill(engine.identity.pid, signal.SIGSTOP)
    head = psutil.Process(engine.identity.pid)
    eventually(lambda: head.status() == psutil.STATUS_STOPPED)
    tree = process_dump.tree(engine.identity)
    told = asyncio.run(process_dump.dump(engine.identity))
    engine.kill()
    assert f"{engine.identity.pid} {os.getpid()} stopped" in tree
    assert "s3cret" not in tree + told
    assert "waits_for_ever" in told or "no Python stack: py-spy: " in told


def test_process_without_python_is_told_by_the_kernel(tmp_path: Path) -> None:
    engine = run(tmp_path, "/bin/sleep", "300")
    told = asyncio.run(process_dump.dump(engine.identity))
    engine.kill()
    assert "it is no Python program" in told
    assert "wchan: " in told
    assert "none lives" in process_dump.tree(engine.identity)
