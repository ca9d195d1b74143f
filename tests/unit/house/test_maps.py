"""The docstring of a package is a map: it names each module and package within."""

import ast
import re
from pathlib import Path

import pytest

from tests.support.sources import PACKAGES, module, parsed, sources

MAPPED = (
    *(*PACKAGES, "benchmarks"),
    *("tests/chaos", "tests/engine", "tests/model", "tests/support"),
)
MAPS = [path for path in sources(*MAPPED) if path.name == "__init__.py"]


def within(folder: Path) -> set[str]:
    """The modules and packages of a package; what runs it is not among them."""
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    packages = {path.parent.name for path in folder.glob("*/*.py")}
    return modules | packages


@pytest.mark.parametrize("path", MAPS, ids=module)
def test_a_package_names_all_that_is_in_it(path: Path):
    text = ast.get_docstring(parsed(path)) or ""
    named = set(re.findall(r"``(\w+)``", text))
    assert within(path.parent) - named == set()


@pytest.mark.parametrize("path", MAPS, ids=module)
def test_a_package_lists_nothing_that_is_not_in_it(path: Path):
    text = ast.get_docstring(parsed(path)) or ""
    listed = set(re.findall(r"^ *- ``(\w+)``", text, re.MULTILINE))
    assert listed - within(path.parent) == set()
