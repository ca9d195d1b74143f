"""The completion marker: the file that is written last into an environment.

An environment without it, or with one that does not fit the recipe, is incomplete: its
installation was killed, and it is built again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from launcher.environments.recipes import Recipe

FILE_NAME = "modelserver-engine.json"


@dataclass(frozen=True)
class Installed:
    """A complete environment; versions are those that its interpreter printed.

    `torch_source` says where torch came from and why; it is empty where the engine's
    own requirements brought it.
    """

    name: str
    path: Path
    version: str
    torch_version: str
    torch_source: str
    size_bytes: int
    seconds: float


def to_text(installed: Installed) -> str:
    """Write `installed` as JSON, without its path: that is where the marker lies."""
    fields = asdict(installed)
    del fields["path"]
    return json.dumps(fields, indent=2) + "\n"


def from_text(text: str, path: Path, recipe: Recipe) -> Installed | None:
    """Read a marker; None where it is damaged or tells of another recipe."""
    try:
        installed = Installed(path=path, **json.loads(text))
    except (ValueError, TypeError):
        return None
    if (installed.name, installed.version) != (recipe.name, recipe.version):
        return None
    return installed


def read(path: Path, recipe: Recipe) -> Installed | None:
    """Read the marker in the environment at `path`; None where there is none."""
    try:
        text = (path / FILE_NAME).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    return from_text(text, path, recipe)


def write(installed: Installed) -> None:
    """Put the marker in place in one step, so that it is never seen half written."""
    unfinished = installed.path / f"{FILE_NAME}.unfinished"
    unfinished.write_text(to_text(installed), encoding="utf-8")
    unfinished.replace(installed.path / FILE_NAME)
