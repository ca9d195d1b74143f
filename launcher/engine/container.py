"""What an engine in a container has of this host: weights, caches, limits."""

import os
import resource
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from launcher import environments
from launcher.engine.in_container import Box, Mount, enclose
from launcher.engine_types import Launch
from launcher.host import process
from modelserver.errors import ConfigurationError
from modelserver.values import ModelSpec

#: Variables that move Hugging Face's caches; each names a folder.
CACHES = ("HF_HOME", "HF_HUB_CACHE")
_LIMITS = {
    "memlock": resource.RLIMIT_MEMLOCK,
    "stack": resource.RLIMIT_STACK,
    "nofile": resource.RLIMIT_NOFILE,
}


def rooted(model: ModelSpec) -> ModelSpec:
    """The model with a path that means the same wherever a command runs."""
    folder = Path(model.path).expanduser()
    if not model.path or not folder.is_dir():
        return model
    return replace(model, path=str(folder.absolute()))


def boxed(launch: Launch, model: ModelSpec, box: Box) -> Launch:
    """The launch in its container.

    Weights in a folder can be read, Hugging Face's cache can be written. Raises
    ConfigurationError where the cache cannot be made.
    """
    caches = _caches({**os.environ, **launch.environment})
    environment = {**launch.environment, **{k: str(v) for k, v in caches.items()}}
    mounts = [Mount(folder, writable=True) for folder in caches.values()]
    # Hands the API key on without showing it; the images know nothing of it.
    starter = environments.starter("sglang")
    if str(starter) in launch.argv:
        mounts.append(Mount(starter))
    if model.path and Path(model.path).is_dir():
        mounts.append(Mount(Path(model.path)))
    limits = {name: resource.getrlimit(kind)[1] for name, kind in _LIMITS.items()}
    box = replace(box, mounts=tuple(mounts), limits=limits)
    return enclose(
        replace(launch, environment=environment),
        box,
        more=(*process.GIVEN, process.MARK),
    )


def _caches(environ: Mapping[str, str]) -> dict[str, Path]:
    """Where Hugging Face's libraries keep weights, by their own rules; made if new."""
    cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
    named = {"HF_HOME": f"{cache}/huggingface"}
    named |= {name: environ[name] for name in CACHES if environ.get(name)}
    found = {name: Path(each).expanduser().absolute() for name, each in named.items()}
    for name, folder in found.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"{folder}, which a container gets for Hugging Face's cache, cannot be "
                f"made: {error.strerror}; set {name}"
            ) from error
    return found
