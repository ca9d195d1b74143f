"""Imports go down only: who may use what, read from the source."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sources import PACKAGES, ROOT, module, parsed, sources

#: From the ground up; a module may import from its own floor and from those below it.
FLOORS = (
    (
        "modelserver.values",
        "modelserver.measured",
        "modelserver.adapters",
        "modelserver.errors",
        "modelserver.fleet.arguments",
        "modelserver.fleet.key",
        "modelserver.fleet.names",
        "modelserver.garbage",
        "modelserver.inventory",
        "modelserver.decoding",
        "modelserver.logs",
        "modelserver.engine_protocol",
        "modelserver.extent",
        "modelserver.media_urls",
        "modelserver.disk_errors",
        "modelserver.private_folders",
        "modelserver.whole_files",
        "modelserver.missing_files",
        "modelserver.parameters",
        "modelserver.python310",
        "modelserver.schedules",
        "modelserver.server_address",
        "modelserver.tracing",
        "modelserver.user",
    ),
    (
        "modelserver.fleet",
        "modelserver.settings",
        "modelserver.keyring",
        "modelserver.joined",
    ),
    ("modelserver.policy",),
    (
        "modelserver.store",
        "modelserver.engine_client",
        "modelserver.messaging.catalogue",
    ),
    (
        "modelserver.api",
        "modelserver.control",
        "modelserver.messaging",
        "modelserver.operations",
    ),
    ("modelserver.runs",),
    ("modelserver.gateway", "modelserver.page"),
    ("modelserver", "modelserver.cli"),
    ("workers", "launcher"),
    ("tasks",),
)
#: What decisions may not depend on.
IMPURE = {"os", "time", "random", "redis", "socket", "datetime", "asyncio", "threading"}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, names of a package's modules included."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module
            yield from _from(node.module, [alias.name for alias in node.names])


def _from(package: str, names: list[str]) -> Iterator[str]:
    folder = ROOT.joinpath(*package.split("."))
    modules = [n for n in names if any(folder.glob(f"{n}.py")) or (folder / n).is_dir()]
    yield from (f"{package}.{name}" for name in modules)
    if len(modules) < len(names):
        yield package


def floor(name: str) -> int:
    """The floor with the longest prefix of this module's name; -1 for other code."""
    best = max(
        (part for part in sum(FLOORS, ()) if f"{name}.".startswith(f"{part}.")),
        key=len,
        default="",
    )
    return next((n for n, parts in enumerate(FLOORS) if best in parts), -1)


@pytest.mark.parametrize("path", sources(*PACKAGES), ids=module)
def test_imports_go_down_only(path: Path):
    own = floor(module(path))
    upward = [name for name in imports(path) if floor(name) > own]
    assert upward == []


@pytest.mark.parametrize("path", sources("modelserver/policy"), ids=module)
def test_policy_is_pure(path: Path):
    assert {name.partition(".")[0] for name in imports(path)} & IMPURE == set()


@pytest.mark.parametrize("path", sources("modelserver/policy"), ids=module)
def test_policy_decides_on_values_alone(path: Path):
    ours = {name for name in imports(path) if name.startswith("modelserver")}
    values = (
        "modelserver.values",
        "modelserver.measured",
        "modelserver.errors",
        "modelserver.inventory",
        "modelserver.adapters",
        "modelserver.decoding",
        "modelserver.parameters",
        "modelserver.python310",
        "modelserver.schedules",
    )
    allowed = (*values, "modelserver.policy")
    assert {name for name in ours if not name.startswith(allowed)} == set()


@pytest.mark.parametrize("path", sources("modelserver/cli"), ids=module)
def test_the_command_line_starts_programs_and_does_not_import_them(path: Path):
    started = {"tasks", "workers", "launcher"}
    assert {name.partition(".")[0] for name in imports(path)} & started == set()


def test_the_environment_is_read_in_one_place():
    """Programs that start others hand it on; nothing else looks into it.

    But for what lies over the fleet file, which is the fleet's own.
    """
    looks = re.compile(r"\benviron\b|\bgetenv\b")
    readers = {module(p) for p in sources("modelserver") if looks.search(p.read_text())}
    assert {
        reader for reader in readers if not reader.startswith("modelserver.cli")
    } == {"modelserver.settings", "modelserver.fleet.variables"}
