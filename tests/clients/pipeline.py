"""What a pipeline does, by a program that has the client alone; prints what it did.

It runs in environments of other Pythons, where nothing of the tests is: it imports
modelserver and the standard library.
"""

import asyncio
import json
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from modelserver import (
    ModelserverError,
    chat,
    complete,
    embed,
    embed_texts,
    map_prompts,
    map_rows,
)

#: Most that anything here waits, in seconds.
PATIENCE = 60.0
PROMPTS = ["one", "two", "three"]


def check_tasks() -> None:
    """Single requests, and one that is refused before it is sent."""
    text = complete.delay("one").get(timeout=PATIENCE)
    assert text, "no text"
    assert text == complete.delay("one").get(timeout=PATIENCE)
    assert chat.delay([{"role": "user", "content": "hi"}]).get(timeout=PATIENCE)
    assert len(embed.delay("a text").get(timeout=PATIENCE)) > 1
    assert "max_tokens" in _refusal(lambda: complete.delay("one", max_tokens=-1))


def _refusal(call: Callable[[], object]) -> str:
    """The error that modelserver raises for a call."""
    try:
        call()
    except ModelserverError as error:
        return str(error)
    raise AssertionError("it was not refused")


def check_runs() -> None:
    """Many prompts, resumed from their journal; many texts; no journal."""
    first = [answer.text for answer in map_prompts(PROMPTS, journal="run.db")]
    assert len(first) == len(PROMPTS)
    assert first == [answer.text for answer in map_prompts(PROMPTS, journal="run.db")]
    assert len(list(embed_texts(PROMPTS))) == len(PROMPTS)
    Path("no.db").write_text("this is no journal" * 100)
    told = _refusal(lambda: list(map_prompts(PROMPTS, journal="no.db")))
    assert "no.db is no journal" in told, told


async def _twice(row: str) -> str:
    """Two dependent requests; rows that are late or broken on purpose."""
    if row == "late":
        await asyncio.sleep(PATIENCE)
    if row == "broken":
        raise asyncio.TimeoutError("of the row's own")
    return str(await complete.aio(await complete.aio(row)))


def check_rows() -> None:
    """Rows of several requests: answers, a deadline, an error that names its row."""
    rows = ["one", "broken", "two"]
    found = list(map_rows(_twice, rows, on_error="return"))
    assert [bool(each.error) for each in found] == [False, True, False], found
    notes = getattr(found[1].error, "__notes__", [])
    assert any("row 1" in note for note in notes), notes
    (late,) = map_rows(_twice, ["late"], deadline=1.0, on_error="return")
    assert "not done within 1 s" in str(late.error), late.error


def check_commands() -> None:
    """The commands: a file of requests, the fleet as it is, and what is refused."""
    body = {"model": "writer", "prompt": "one", "max_tokens": 4}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": body}
    Path("in.jsonl").write_text(json.dumps(line) + "\n")
    assert _modelserver("batch", "run", "in.jsonl", "-o", "out.jsonl").returncode == 0
    assert json.loads(Path("out.jsonl").read_text())["response"]["status_code"] == 200
    status = json.loads(_modelserver("status", "--json").stdout)
    assert "writer" in {model["name"] for model in status["models"]}
    for command in ("why", "models", "alerts"):
        done = _modelserver(command, *(["writer"] if command == "why" else []))
        assert done.returncode == 0, done.stderr
    refused = _modelserver("ui", "--port", "0")
    assert refused.returncode == 2
    assert "modelserver[host]" in refused.stderr, refused.stderr


def _modelserver(*arguments: str) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-m", "modelserver.cli", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE)


CHECKS = (check_tasks, check_runs, check_rows, check_commands)

if __name__ == "__main__":
    for check in CHECKS:
        check()
    said = {"python": platform.python_version(), "checks": len(CHECKS)}
    print(json.dumps(said))
