"""An engine in a container: the command for it, and what it has of this host.

Everything that the engine needs has the same path and the same port inside and outside,
so its command is the one that would run here. Its values go by the environment of
docker or podman: a command line can be read by every user of the host.
"""

import os
import resource
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from launcher import environments
from launcher.engine_types import Launch
from launcher.host import process
from launcher.host.containers import ContainerRuntime
from modelserver.errors import ConfigurationError
from modelserver.fleet.container_arguments import is_privileged
from modelserver.values import ModelSpec

#: Variables of the launcher that a container gets as well, where they are set.
HANDED_ON_VARIABLES = (
    *("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
)
#: Variables that docker and podman themselves go by. A model's values for them go by
#: the command line instead; none is a secret.
CLIENT_VARIABLES = frozenset(
    {
        *("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD"),
        *("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME"),
        *("DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "CONTAINER_HOST"),
        *("CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "STORAGE_DRIVER"),
    }
)
#: Limits that SGLang's and vLLM's instructions ask for, and files for many connections;
#: -1 is no limit.
ULIMITS = {"memlock": -1, "stack": 67_108_864, "nofile": 1_048_576}


#: Variables that move Hugging Face's caches; each names a folder.
CACHE_VARIABLES = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
#: The limits of this process that belong to them.
_LIMITS = {
    "memlock": resource.RLIMIT_MEMLOCK,
    "stack": resource.RLIMIT_STACK,
    "nofile": resource.RLIMIT_NOFILE,
}


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder or file of the host that the container has under the same path."""

    path: Path
    writable: bool = False

    def __str__(self) -> str:
        """As docker's and podman's ``--mount`` want it, which is a line of CSV."""
        source = str(self.path).replace('"', '""')
        text = f'type=bind,"source={source}","target={source}"'
        return text if self.writable else f"{text},readonly"


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """What a container is made of beside the engine's command."""

    runtime: ContainerRuntime
    image: str
    name: str
    labels: Mapping[str, str]
    #: UUIDs of its GPUs.
    gpus: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    #: The launcher's own hard limits, -1 for no limit.
    limits: Mapping[str, int] | None = None
    #: The model's own; they come last, so they win.
    arguments: tuple[str, ...] = ()


def with_absolute_path(model: ModelSpec) -> ModelSpec:
    """The model with a path that means the same wherever a command runs."""
    folder = Path(os.path.expanduser(model.path))
    if not model.path or not folder.is_dir():
        return model
    return replace(model, path=str(folder.absolute()))


def in_container(launch: Launch, model: ModelSpec, container: ContainerSpec) -> Launch:
    """The launch in a container with what it needs of this host.

    It may read weights in a folder, and write Hugging Face's cache. Raises
    ConfigurationError where the cache cannot be made.
    """
    caches = _caches({**os.environ, **launch.environment})
    environment = {**launch.environment, **{k: str(v) for k, v in caches.items()}}
    environment |= _numbered(environment, container)
    mounts = [Mount(folder, writable=True) for folder in caches.values()]
    # The starter hands the API key on without showing it; no image has it.
    starter = environments.starter("sglang")
    if str(starter) in launch.argv:
        mounts.append(Mount(starter))
    if model.path and Path(model.path).is_dir():
        mounts.append(Mount(Path(model.path)))
    limits = {name: resource.getrlimit(kind)[1] for name, kind in _LIMITS.items()}
    container = replace(container, mounts=tuple(mounts), limits=limits)
    return container_launch(
        replace(launch, environment=environment),
        container,
        more=(*process.ENGINE_VARIABLES, process.MARK),
    )


def container_launch(
    launch: Launch, container: ContainerSpec, more: tuple[str, ...] = ()
) -> Launch:
    """The launch in a container, which gets ``more`` variables of the launcher as well.

    An empty variable of the launch unsets the launcher's, which no container has.
    """
    values = {name: value for name, value in launch.environment.items() if value}
    labels = container.labels.items()
    argv = [
        *(container.runtime.program, "run", "--rm", "--name", container.name),
        *(word for pair in labels for word in ("--label", "=".join(pair))),
        # Only an image that is here: a start must not wait for gigabytes.
        *("--pull", "never"),
        # Engines listen on loopback, and on the port that they were given.
        *("--network", "host", "--ipc", "host"),
        *_ulimits(container),
        # Under SELinux a user's weights carry no label that a container may read.
        *("--security-opt", "label=disable"),
        # Its output goes to the engine's log only.
        *("--log-driver", "none"),
        *_gpus(container),
        *(word for mount in container.mounts for word in ("--mount", str(mount))),
        *_environment(values, more),
        *container.arguments,
        *("--entrypoint", launch.argv[0], container.image, *launch.argv[1:]),
    ]
    ours = {name: each for name, each in values.items() if name not in CLIENT_VARIABLES}
    return Launch(tuple(argv), ours)


def _environment(values: Mapping[str, str], more: tuple[str, ...]) -> Iterator[str]:
    for name in sorted({*values, *more, *HANDED_ON_VARIABLES}):
        steers = name in CLIENT_VARIABLES and name in values
        yield from ("--env", f"{name}={values[name]}" if steers else name)


def _ulimits(container: ContainerSpec) -> Iterator[str]:
    """The limits. Podman cannot give more than the launcher has itself."""
    limits = container.limits if container.runtime.is_podman else None
    for name, wanted in ULIMITS.items():
        own = (limits or {}).get(name, -1)
        limit = wanted if own < 0 else own if wanted < 0 else min(wanted, own)
        yield from ("--ulimit", f"{name}={limit}:{limit}")


def _gpus(container: ContainerSpec) -> Iterator[str]:
    if container.runtime.is_podman:
        for gpu in container.gpus:
            yield from ("--device", f"nvidia.com/gpu={gpu}")
    elif container.gpus:
        # The quotes are docker's: without them a comma begins another option.
        yield from ("--gpus", f'"device={",".join(container.gpus)}"')


def _numbered(
    environment: Mapping[str, str], container: ContainerSpec
) -> dict[str, str]:
    """The indexes of its GPUs in a container, which has these only.

    With ``--privileged`` it has all of its host's, by the host's indexes.
    """
    given = environment.get("CUDA_VISIBLE_DEVICES", "")
    if not given.replace(",", "").isdigit() or is_privileged(container.arguments):
        return {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(len(container.gpus))))}


def _caches(environ: Mapping[str, str]) -> dict[str, Path]:
    """Where Hugging Face's libraries keep weights, by their own rules; made if new."""
    cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
    named = {"HF_HOME": f"{cache}/huggingface"}
    named |= {name: environ[name] for name in CACHE_VARIABLES if environ.get(name)}
    found = {
        name: Path(os.path.expanduser(each)).absolute() for name, each in named.items()
    }
    for name, folder in found.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"{folder}, which a container gets for Hugging Face's cache, cannot be "
                f"made: {error.strerror}; set {name}"
            ) from error
    return found
