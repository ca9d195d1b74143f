"""Whoever sends requests can catch what the page on pipelines names."""

import re
from pathlib import Path

import pytest

import modelserver
from modelserver import errors

PAGE = Path(__file__).parents[3] / "docs" / "pipelines.md"
TABLE = PAGE.read_text().partition("## Errors\n")[2].partition("\n## ")[0]
TOLD = sorted(set(re.findall(r"^\| `(\w+Error)`", TABLE, re.MULTILINE)))


@pytest.mark.parametrize("name", TOLD)
def test_an_error_that_is_told_can_be_caught_by_its_name(name: str):
    assert issubclass(getattr(errors, name), errors.ModelserverError)
    assert getattr(modelserver, name) is getattr(errors, name)
