"""The project's own source files, for tests that read them."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: The packages that are installed.
PACKAGES = ("modelserver", "workers", "launcher", "tasks")
#: All folders with Python files of ours.
FOLDERS = (*PACKAGES, "benchmarks", "tests")


def sources(*folders: str) -> list[Path]:
    """The Python files below these folders, sorted."""
    return sorted(path for f in folders for path in (ROOT / f).rglob("*.py"))


def module(path: Path) -> str:
    """The name by which a file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def parsed(path: Path) -> ast.Module:
    """A file's syntax tree."""
    return ast.parse(path.read_text())
