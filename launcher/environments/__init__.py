"""Engine environments: one per engine and version, since their packages clash.

SGLang and vLLM pin different versions of the same packages, and neither can live beside
this project's own. So each gets an environment below the home folder, and an engine is
always a process that this environment's interpreter runs.

- ``recipes``: which engines can be installed, and of what
- ``installer``: installs and removes environments
- ``children``: runs installers
- ``install_lock``: one at a time, also among hosts that share the folder
- ``torch_source``: where torch comes from
- ``paths``: where environments are, and whether they are complete
- ``check``, ``findings``: what engines on this host could clash with
- ``tiny``: has an environment write the tiny models
- ``model_files``: has an environment fetch a model's small files
- ``variables``: which of the launcher's variables engines get
- ``starters``, ``standins``: our code that engines' interpreters run
"""

from launcher.environments.children import InstallProgress
from launcher.environments.installer import install, remove
from launcher.environments.model_files import fetch_model_files
from launcher.environments.paths import (
    Installed,
    environment_path,
    installed,
    interpreter,
    is_installed,
    standins_path,
    starter,
)
from launcher.environments.recipes import RECIPES, Recipe
from launcher.environments.tiny import ensure_tiny_models
from launcher.environments.variables import inherited

__all__ = [
    "RECIPES",
    "InstallProgress",
    "Installed",
    "Recipe",
    "ensure_tiny_models",
    "environment_path",
    "fetch_model_files",
    "inherited",
    "install",
    "installed",
    "interpreter",
    "is_installed",
    "remove",
    "standins_path",
    "starter",
]
