"""The client needs no more than `pip install modelserver` brings."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner

from modelserver.cli import COMMANDS
from modelserver.cli.host_part import HOST_COMMANDS, HOST_MODULES, refusing
from modelserver.errors import ConfigurationError
from modelserver.python310 import tomllib
from tests.support.sources import PACKAGES, ROOT, module, parsed, sources

#: What a pipeline imports by `from modelserver import ...`.
CLIENT = (
    *("modelserver", "modelserver.api", "modelserver.runs.mapping"),
    *("modelserver.runs.embedding", "modelserver.runs.rollouts.mapping"),
)
#: Distributions whose modules have another name, or that bring further modules.
MODULES_OF = {
    "async-timeout": {"async_timeout"},
    "celery": {"celery", "kombu", "vine"},
    "nvidia-ml-py": {"pynvml"},
    "prometheus-client": {"prometheus_client"},
    "typing-extensions": {"typing_extensions"},
}
#: Used where a pipeline has them.
OPTIONAL = {"numpy", "opentelemetry", "pyarrow", "tqdm", "zstandard"}
#: Of the host part, not looked for: a program, and the client's in narrower ranges.
NOT_IMPORTED = {"hiredis", "py-spy", "redis"}
LOADED = "import sys, modelserver; modelserver.complete; print(*sys.modules)"

FILES = {module(path): path for path in sources(*PACKAGES)}


@cache
def requirements() -> dict[str, set[str]]:
    """The distributions that are named for the client and for each extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {"client": project["dependencies"], **project["optional-dependencies"]}
    return {
        part: {re.split(r"[^\w-]", line)[0] for line in lines}
        for part, lines in named.items()
    }


def modules_of(part: str) -> set[str]:
    """The top-level modules that a part brings."""
    named = requirements()[part]
    return set().union(*(MODULES_OF.get(name, {name}) for name in named))


@cache
def imported(name: str) -> frozenset[str]:
    """Every module that one of ours imports, and each package above them."""
    return frozenset(_imported(FILES[name]))


def _imported(path: Path) -> Iterator[str]:
    for node in running(parsed(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.module
            inner = (f"{node.module}.{alias.name}" for alias in node.names)
            names = [node.module, *(name for name in inner if name in FILES)]
        else:
            continue
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def running(node: ast.AST) -> Iterator[ast.AST]:
    """All below a node but what only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from running(child)


def reached(*roots: str) -> set[str]:
    """All modules that may be imported from these on, also in functions."""
    found: set[str] = set()
    ahead = list(roots)
    while ahead:
        name = ahead.pop()
        if name in found:
            continue
        found.add(name)
        if name in FILES:
            ahead += imported(name)
    return found


def foreign(modules: set[str]) -> set[str]:
    """The top-level modules among them that are neither ours nor Python's."""
    tops = {name.partition(".")[0] for name in modules}
    return tops - set(PACKAGES) - sys.stdlib_module_names


@pytest.mark.parametrize("command", [None, *sorted(set(COMMANDS) - HOST_COMMANDS)])
def test_the_client_and_its_commands_need_what_the_client_brings(command: str | None):
    roots = (
        CLIENT if command is None else (f"modelserver.cli.{COMMANDS[command].module}",)
    )
    assert foreign(reached(*roots)) - OPTIONAL <= modules_of("client")


def test_the_first_use_loads_nothing_of_the_host_part():
    argv = [sys.executable, "-c", LOADED]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    # Celery uses greenlet where it is there.
    assert loaded & set(HOST_MODULES) <= {"greenlet"}
    ours = {"cli", "control", "engine_client", "gateway", "page", "policy"}
    assert not {f"modelserver.{name}" for name in ours} & loaded


def test_the_host_part_is_looked_for_by_all_that_it_brings():
    named = requirements()["host"] - NOT_IMPORTED
    brought = set().union(*(MODULES_OF.get(name, {name}) for name in named))
    assert set(HOST_MODULES) == brought


def test_all_that_the_client_runs_is_checked_for_each_python():
    makefile = (ROOT / "Makefile").read_text()
    (told,) = re.findall(r"addprefix -m modelserver\.cli\.,([^)]*)\)", makefile)
    modules = {COMMANDS[name].module for name in set(COMMANDS) - HOST_COMMANDS}
    assert set(told.replace("\\", "").split()) == modules


def test_a_command_of_the_host_part_says_what_to_install():
    command = refusing("ui", "needs aiohttp; run: pip install 'modelserver[host]'")
    with pytest.raises(ConfigurationError, match=r"^modelserver ui needs aiohttp; run"):
        CliRunner().invoke(command, ["--port", "1", "-h"], catch_exceptions=False)
