"""Child processes of an installation."""

from __future__ import annotations

import os
import ssl
import sys
from pathlib import Path

import pytest

from launcher.environments import (
    InstallProgress,
)
from launcher.environments.children import (
    Children,
    child_environment,
    complaint,
)
from modelserver.errors import EngineEnvironmentError


def test_child_environment_leaves_out_what_leads_astray() -> None:
    caller = {
        "PATH": "/usr/bin",
        "PIP_INDEX_URL": "https://index.example/simple",
        "PYTHONPATH": "/caller",
        "VIRTUAL_ENV": "/caller/venv",
        "PYTHONDONTWRITEBYTECODE": "1",
        "UV_SYSTEM_CERTS": "0",
    }
    assert child_environment(caller, {"PYTHONPATH": "/standins"}) == {
        "PATH": "/usr/bin",
        "PIP_INDEX_URL": "https://index.example/simple",
        "PYTHONPATH": "/standins",
        "UV_SYSTEM_CERTS": "0",
    }


def test_uv_trusts_the_authorities_of_the_system() -> None:
    known = bool(ssl.get_default_verify_paths().cafile)
    names = ("UV_SYSTEM_CERTS", "UV_NATIVE_TLS") if known else ()
    assert child_environment({}, {}) == dict.fromkeys(names, "1")
    assert child_environment({"UV_NATIVE_TLS": "0"}, {}) == {"UV_NATIVE_TLS": "0"}


def test_failed_step_names_the_step_its_last_line_and_the_log(tmp_path: Path) -> None:
    children = Children(tmp_path / "e.log", os.dup(0), lambda progress: None)
    argv = [sys.executable, "-c", "print('no such package'); raise SystemExit(3)"]
    step = InstallProgress(index=1, steps=1, what="installing torch", why="a test")
    with pytest.raises(EngineEnvironmentError) as caught:
        children.run(argv, step)
    os.close(children.lock_descriptor)
    message = str(caught.value)
    for part in ("installing torch", "exit code 3", "no such package", "e.log"):
        assert part in message


def test_failed_step_tells_the_cause_that_comes_with_the_error(tmp_path: Path) -> None:
    log = tmp_path / "e.log"
    log.write_text("Using Python\nerror: No solution found\n  cause: no certifi\n\n")
    assert complaint(log) == "error: No solution found cause: no certifi"
