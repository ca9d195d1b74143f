"""Models of the hub: which revision an engine loads, and whether it needs the hub."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from launcher.engine_types import model_config
from launcher.environments.model_files import HUB_ID
from launcher.startup_log.weights import Weights
from modelserver.values import ModelSpec

#: With it, the hub's libraries ask nobody.
OFFLINE = {"HF_HUB_OFFLINE": "1"}
#: Arguments by which an engine loads others than the files that are known to be here.
OTHER_FILES = ("--download-dir", "--tokenizer-revision", "--code-revision")
#: What may be an id of the hub, within an argument.
_WORDS = re.compile(r"[\w./-]+")


def is_of_hub(path: str) -> bool:
    """Whether a model's path is an id of the hub."""
    return bool(HUB_ID.fullmatch(path)) and not Path(path).is_dir()


def revision_of(extra_args: Sequence[str]) -> str:
    """The revision that an engine is told to load.

    >>> revision_of(("--revision=v1",)), revision_of(("--revision", "v2"))
    ('v1', 'v2')
    """
    words = [part for word in extra_args for part in word.split("=", 1)]
    for flag, value in itertools.pairwise(words):
        if flag == "--revision":
            return value
    return "main"


def offline_with_folder(model: ModelSpec, path: str) -> dict[str, str]:
    """OFFLINE where the model is in a folder, and so are its adapters."""
    adapters = any(is_of_hub(each.path) for each in model.adapters)
    return OFFLINE if Path(path).is_dir() and not adapters else {}


def offline_once_complete(model: ModelSpec, files: Weights) -> dict[str, str]:
    """OFFLINE where all files that the engine loads are known to be here.

    Not where its arguments or its code come from another model of the hub.
    """
    if model.image or not is_of_hub(files.path):
        return {}
    # Some arguments name it within JSON.
    words = [word for each in model.extra_args for word in _WORDS.findall(each)]
    others = [each for each in words if "/" in each and is_of_hub(each)]
    others += [each.path for each in model.adapters if is_of_hub(each.path)]
    flags = [each.replace("_", "-") for each in model.extra_args]
    others += [each for each in flags if each.startswith(OTHER_FILES)]
    if others or model_config.has_code_elsewhere(files):
        return {}
    return OFFLINE if files.is_complete(revision_of(model.extra_args)) else {}
