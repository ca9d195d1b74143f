"""The examples in docstrings are true."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

from tests.support.processes import ROOT

HOUSE = ("modelserver", "tasks", "workers", "launcher", "benchmarks", "tests")


def _with_examples() -> list[str]:
    files = [file for room in HOUSE for file in (ROOT / room).rglob("*.py")]
    found = [file for file in files if re.search(r"(?m)^ +>>> ", file.read_text())]
    return sorted(_module(file.relative_to(ROOT)) for file in found)


def _module(file: Path) -> str:
    return ".".join(file.with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("name", _with_examples())
def test_the_examples_of_a_module_are_true(name: str):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted
    assert not result.failed
