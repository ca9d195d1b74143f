"""Where engine environments lie below the home folder, and whether they are whole."""

from __future__ import annotations

from pathlib import Path

from launcher.environments import marker
from launcher.environments.marker import Installed
from launcher.environments.recipes import RECIPES, Recipe, recipe_of
from modelserver.errors import EngineEnvironmentError

STANDINS = Path(__file__).parent / "standins"


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


def find(recipe: Recipe, home: Path) -> Installed | None:
    """Return the complete environment of `recipe`; None where it is not there."""
    path = environment_path(recipe.name, home)
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
    """Return the complete environments of the known recipes, by name."""
    found = (find(RECIPES[name], home) for name in sorted(RECIPES))
    return [environment for environment in found if environment is not None]
