"""Where engine environments lie below the home folder, and whether they are complete.

The marker is the file that is written last into an environment. An environment without
it, or with one that does not fit the recipe, is incomplete: its installation was
killed, and it is built again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from launcher.environments.recipes import RECIPES, VERSION, Recipe, recipe_of
from modelserver.errors import EngineEnvironmentError
from modelserver.whole_files import write_whole

#: The file that is written last into an environment.
MARKER = "modelserver-engine.json"
#: Modules that take the place of CUDA's packages on a CPU.
STANDINS = Path(__file__).parent / "standins"
#: Programs of ours that run under an engine's interpreter.
STARTERS = Path(__file__).parent / "starters"


@dataclass(frozen=True)
class Installed:
    """A complete environment; versions are those that its interpreter printed."""

    name: str
    path: Path
    version: str
    torch_version: str
    #: Where torch came from and why, "" where the engine's requirements brought it.
    torch_source: str
    size_bytes: int
    seconds: float


def engines_folder(home: Path) -> Path:
    """Return the folder that holds all environments; made absolute for children."""
    return home.expanduser().absolute() / "engines"


def environment_path(name: str, home: Path) -> Path:
    """Return the folder of the environment, whether or not it exists."""
    recipe = recipe_of(name)
    return engines_folder(home) / f"{recipe.name}-{recipe.version}"


def python_of(environment: Path) -> Path:
    return environment / "bin" / "python"


def standins_path() -> Path:
    """Return the folder of stand-ins, to be put on an engine's PYTHONPATH."""
    return STANDINS


def starter(engine: str) -> Path:
    """Return the script that starts an engine's program with its API key."""
    return STARTERS / f"{engine}_serve.py"


def find_installed(recipe: Recipe, home: Path) -> Installed | None:
    """Return the complete environment of `recipe`; None where it is not there."""
    path = environment_path(recipe.requirement, home)
    # The interpreter is a link, whose target may be gone.
    return read_marker(path, recipe) if python_of(path).exists() else None


def is_installed(name: str, home: Path) -> bool:
    return find_installed(recipe_of(name), home) is not None


def interpreter(name: str, home: Path) -> Path:
    """Return the environment's python.

    Raises EngineEnvironmentError where the environment is missing or incomplete.
    """
    path = environment_path(name, home)
    may_come = True
    if nothing_in(home):
        fact = f"is not there: {home} has nothing in it, and may not be mounted yet"
    elif not path.exists():
        fact, may_come = "does not exist", False
    elif not python_of(path).exists():
        fact = "has no working interpreter"
    elif not is_installed(name, home):
        fact = "is incomplete: its installation did not finish"
    else:
        return python_of(path)
    error = EngineEnvironmentError(
        f"the environment of engine {name} in {path} {fact}; "
        f"run: modelserver engines install {name}"
    )
    error.may_come = may_come
    raise error


def nothing_in(home: Path) -> bool:
    """Whether the home folder is empty or not there, as before its disk is mounted."""
    try:
        return not any(home.expanduser().iterdir())
    except OSError:
        return True


def installed(home: Path) -> list[Installed]:
    """Return the complete environments of all versions, by name and version."""
    found = []
    for path in sorted(engines_folder(home).glob(f"*/{MARKER}")):
        recipe = _recipe_in(path.parent)
        environment = find_installed(recipe, home) if recipe else None
        if environment is not None:
            found.append(environment)
    return found


def _recipe_in(path: Path) -> Recipe | None:
    """The recipe that a folder is named after; None for a folder of another kind."""
    for name, recipe in RECIPES.items():
        version = path.name.removeprefix(f"{name}-")
        if version != path.name and VERSION.fullmatch(version):
            known = recipe.any_version or version == recipe.version
            return recipe.at(version) if known else None
    return None


def marker_text(installed: Installed) -> str:
    """Write `installed` as JSON, without its path, which is where the marker lies."""
    fields = asdict(installed)
    del fields["path"]
    return json.dumps(fields, indent=2) + "\n"


def parse_marker(text: str, path: Path, recipe: Recipe) -> Installed | None:
    """Read a marker; None where it is damaged or tells of another recipe."""
    try:
        installed = Installed(path=path, **json.loads(text))
    except (ValueError, TypeError):
        return None
    if (installed.name, installed.version) != (recipe.name, recipe.version):
        return None
    return installed


def read_marker(path: Path, recipe: Recipe) -> Installed | None:
    """Read the marker in the environment at `path`; None where there is none."""
    try:
        text = (path / MARKER).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    return parse_marker(text, path, recipe)


def write_marker(installed: Installed) -> None:
    """Put the marker in place in one step, so that it is never seen half written."""
    write_whole(installed.path / MARKER, marker_text(installed))


def hub_folder(environ: Mapping[str, str]) -> Path:
    """Where Hugging Face's libraries keep weights, by their own rules."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if named := environ.get(name):
            return Path(os.path.expanduser(named))
    home = environ.get("HF_HOME") or (
        (environ.get("XDG_CACHE_HOME") or "~/.cache") + "/huggingface"
    )
    return Path(os.path.expanduser(home)) / "hub"
