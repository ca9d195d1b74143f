"""The command that runs an engine's own command in a container. Pure.

Everything that the engine needs has the same path and the same port inside and outside,
so its command is the one that would run here. Its values go by the environment of
docker or podman: a command line can be read by every user of the host.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.engine_types.base import Launch
from launcher.host.containers import Runtime

#: Variables of the launcher that engines in containers get as well, where they are set.
HANDED_ON = (
    *("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "no_proxy"),
)
#: Variables that would lead docker or podman itself astray. None is a secret, and they
#: go by the command line.
STEERING = frozenset(
    {
        *("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD"),
        *("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME"),
        *("DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "CONTAINER_HOST"),
        *("CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "STORAGE_DRIVER"),
    }
)
#: What SGLang's and vLLM's own instructions ask for, and files enough for connections;
#: -1 is without a limit.
ULIMITS = {"memlock": -1, "stack": 67_108_864, "nofile": 1_048_576}


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
class Box:
    """What a container is made of beside the engine's command.

    ``gpus`` are UUIDs; ``limits`` are the launcher's own hard ones, -1 for none;
    ``arguments`` are the model's, and come last, so that they win.
    """

    runtime: Runtime
    image: str
    name: str
    labels: Mapping[str, str]
    gpus: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    limits: Mapping[str, int] | None = None
    arguments: tuple[str, ...] = ()


def enclose(launch: Launch, box: Box, more: tuple[str, ...] = ()) -> Launch:
    """The launch in a container; ``more`` variables of the environment go in as well.

    An empty variable of the launch means "not ours", which a container's never are.
    """
    values = {name: value for name, value in launch.environment.items() if value}
    argv = [
        *(box.runtime.program, "run", "--rm", "--name", box.name),
        *(word for each in box.labels.items() for word in ("--label", "=".join(each))),
        # Only what is here already: a start must not wait for gigabytes.
        *("--pull", "never"),
        # Engines listen on loopback, and on the port that they were given.
        *("--network", "host", "--ipc", "host"),
        *_ulimits(box),
        # Weights of a user carry no label that a container may read.
        *("--security-opt", "label=disable"),
        # Its output goes to the engine's log, and need not grow elsewhere as well.
        *("--log-driver", "none"),
        *_gpus(box),
        *(word for mount in box.mounts for word in ("--mount", str(mount))),
        *_environment(values, more),
        *box.arguments,
        *("--entrypoint", launch.argv[0], box.image, *launch.argv[1:]),
    ]
    ours = {name: each for name, each in values.items() if name not in STEERING}
    return Launch(tuple(argv), ours)


def _environment(values: Mapping[str, str], more: tuple[str, ...]) -> Iterator[str]:
    for name in sorted({*values, *more, *HANDED_ON}):
        steers = name in STEERING and name in values
        yield from ("--env", f"{name}={values[name]}" if steers else name)


def _ulimits(box: Box) -> Iterator[str]:
    """Podman starts what it runs itself, and cannot give more than it has."""
    for name, wanted in ULIMITS.items():
        own = (box.limits or {}).get(name, -1) if box.runtime.is_podman else -1
        limit = wanted if own < 0 else own if wanted < 0 else min(wanted, own)
        yield from ("--ulimit", f"{name}={limit}:{limit}")


def _gpus(box: Box) -> Iterator[str]:
    if box.runtime.is_podman:
        for gpu in box.gpus:
            yield from ("--device", f"nvidia.com/gpu={gpu}")
    elif box.gpus:
        # The quotes are docker's: without them a comma begins another option.
        yield from ("--gpus", f'"device={",".join(box.gpus)}"')
