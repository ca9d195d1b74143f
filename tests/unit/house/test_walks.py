"""The walks through the code in the documentation go by places that exist."""

import ast
import re

import pytest

from tests.support.sources import ROOT

WALKS = (ROOT / "docs" / "development.md").read_text()
STEPS = re.findall(r"^\d+\. `([\w/]+\.py)`: `(\w+)`", WALKS, re.MULTILINE)


def test_there_are_three_walks():
    numbers = re.findall(r"^(\d+)\. `[\w/]+\.py`:", WALKS, re.MULTILINE)
    assert numbers.count("1") == 3
    assert len(numbers) == len(STEPS)


@pytest.mark.parametrize(("file", "name"), STEPS, ids=str)
def test_a_step_of_a_walk_is_there(file: str, name: str):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    tree = ast.walk(ast.parse((ROOT / file).read_text()))
    assert name in {node.name for node in tree if isinstance(node, kinds)}
