"""Tests lie where a reader looks for them: the folders are those of the code."""

from pathlib import Path

import pytest

from tests.support.sources import ROOT

#: Where the folders of the tests have their counterparts.
HOMES = (ROOT, ROOT / "modelserver", ROOT / "tests")
#: Tests of the whole source tree.
WHOLE = {Path("house")}


def folders(floor: str) -> list[Path]:
    """The folders of tests of one floor, by their path below it."""
    tests = ROOT / "tests" / floor
    found = {path.parent.relative_to(tests) for path in tests.rglob("test_*.py")}
    return sorted(found - WHOLE)


def has_code(folder: Path) -> bool:
    return any(folder.glob("*.py"))


@pytest.mark.parametrize("folder", folders("unit"), ids=str)
def test_unit_tests_mirror_the_tree(folder: Path):
    assert any(has_code(home / folder) for home in HOMES)


@pytest.mark.parametrize("folder", folders("integration"), ids=str)
def test_integration_tests_mirror_the_tree(folder: Path):
    assert any(has_code(home / folder) for home in HOMES)
