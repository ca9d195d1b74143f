"""Where engine environments lie below the home folder, and whether they are whole."""

from __future__ import annotations

from pathlib import Path

from launcher.environments import marker
from launcher.environments.marker import Installed
from launcher.environments.recipes import RECIPES, VERSION, Recipe, recipe_of
from modelserver.errors import EngineEnvironmentError

STANDINS = Path(__file__).parent / "standins"
#: Programs of ours that run under an engine's interpreter.
STARTERS = Path(__file__).parent / "starters"


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


def find(recipe: Recipe, home: Path) -> Installed | None:
    """Return the complete environment of `recipe`; None where it is not there."""
    path = environment_path(recipe.requirement, home)
    # The interpreter is a link to the one that it was made from, which can be gone.
    return marker.read(path, recipe) if python_of(path).exists() else None


def is_installed(name: str, home: Path) -> bool:
    return find(recipe_of(name), home) is not None


def interpreter(name: str, home: Path) -> Path:
    """Return the environment's python.

    Raises EngineEnvironmentError where the environment is missing or incomplete.
    """
    path = environment_path(name, home)
    if not path.exists():
        fact = "does not exist"
    elif not python_of(path).exists():
        fact = "has no working interpreter"
    elif not is_installed(name, home):
        fact = "is incomplete: its installation did not finish"
    else:
        return python_of(path)
    raise EngineEnvironmentError(
        f"the environment of engine {name} in {path} {fact}; "
        f"run: modelserver engines install {name}"
    )


def installed(home: Path) -> list[Installed]:
    """Return the complete environments of all versions, by name and version."""
    found = []
    for path in sorted(engines_folder(home).glob(f"*/{marker.FILE_NAME}")):
        recipe = _recipe_in(path.parent)
        environment = find(recipe, home) if recipe else None
        if environment is not None:
            found.append(environment)
    return found


def _recipe_in(path: Path) -> Recipe | None:
    """The recipe of which an environment's folder is called; None for a stranger's."""
    for name, recipe in RECIPES.items():
        version = path.name.removeprefix(f"{name}-")
        if version != path.name and VERSION.fullmatch(version):
            known = recipe.any_version or version == recipe.version
            return recipe.at(version) if known else None
    return None
