"""Files of requests, the command that runs them, and what it wrote."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.support.processes import ROOT


def batch_line(name: str, prompt: str, **body: Any) -> dict[str, Any]:
    """One line: a chat of one message."""
    messages = [{"role": "user", "content": prompt}]
    url = "/v1/chat/completions"
    whole = {"model": "writer", "messages": messages, **body}
    return {"custom_id": name, "method": "POST", "url": url, "body": whole}


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> Path:
    """A file of these lines."""
    with path.open("w") as stream:
        stream.writelines(json.dumps(line) + "\n" for line in lines)
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All lines; none where there is no file."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def names(path: Path) -> Counter[str]:
    """How often each custom_id stands in a file."""
    return Counter(line["custom_id"] for line in read_lines(path))


def names_so_far(path: Path) -> Counter[str]:
    """The same of a file that grows, or did when its writer was killed.

    Of its last line there may be a part.
    """
    text = path.read_text() if path.exists() else ""
    lines = text[: text.rfind("\n") + 1].splitlines()
    return Counter(json.loads(line)["custom_id"] for line in lines)


def batch_command(*arguments: object) -> list[str]:
    """The argv of ``modelserver batch run``."""
    start = [sys.executable, "-m", "modelserver.cli", "batch", "run"]
    return [*start, *map(str, arguments)]


def run_batch(
    environment: Mapping[str, str],
    *arguments: object,
    status: int = 0,
    **more: Any,
) -> "subprocess.CompletedProcess[str]":
    """Run it to its end; the status must be this."""
    done = subprocess.run(
        batch_command(*arguments),
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **more,
    )
    assert done.returncode == status, f"{done.returncode}: {done.stdout}{done.stderr}"
    return done


def start_batch(
    environment: Mapping[str, str], *arguments: object
) -> "subprocess.Popen[bytes]":
    """Start it as a process of its own."""
    return subprocess.Popen(
        batch_command(*arguments),
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
