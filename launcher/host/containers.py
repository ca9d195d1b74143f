"""The only caller of docker and podman, except for the start of an engine itself.

A container's name is made of its engine's mark, which is random and written down before
the start: by it the container can be removed, and no stranger's container has it.
"""

import json
import logging
import subprocess
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from shutil import which

from modelserver.errors import ConfigurationError
from modelserver.settings import load

_log = logging.getLogger(__name__)

#: The programs that are looked for; the first that works is taken.
PROGRAMS = ("docker", "podman")
#: What the names of our containers begin with.
NAME_PREFIX = "modelserver-"
#: The label by which a launcher finds its containers; its value is the run folder.
OWNER_LABEL = "modelserver.run"
#: The label that tells people which engine it is; its value is the engine.
ENGINE_LABEL = "modelserver.engine"
#: Seconds that docker or podman may take for one answer.
CALL_SECONDS = 20.0
#: Seconds in which a container must be gone.
REMOVE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class ContainerRuntime:
    """A program that runs containers."""

    program: str
    #: Some options of podman are others than docker's.
    is_podman: bool = False


def container_name(mark: str) -> str:
    """The name of the container of an engine with this mark."""
    return NAME_PREFIX + mark


class Containers:
    """Finds what runs containers on this host and clears up what was left in it.

    ``program`` is the one that the operator named, "" for whichever works; ``owner``
    tells this launcher's containers from those of others.
    """

    def __init__(self, program: str, owner: str) -> None:
        self._programs = (program,) if program else PROGRAMS
        self._owner = owner

    def labels(self, engine: str) -> dict[str, str]:
        """What an engine's container is labelled with."""
        return {OWNER_LABEL: self._owner, ENGINE_LABEL: engine}

    def find(self) -> ContainerRuntime | str:
        """The program that runs containers here now, or why none does."""
        faults = []
        for name in self._programs:
            path = which(name)
            if path is None:
                faults.append(f"{name} is not installed")
                continue
            # Unlike --version, this asks docker's daemon as well.
            fault = _call(path, "version").fault
            if not fault:
                said = _call(path, "--version").output
                return ContainerRuntime(path, is_podman="podman" in said.lower())
            faults.append(f"{path} does not work: {fault}")
        return (
            f"no containers on this host: {', '.join(faults)}; make one of them work, "
            "or name another by MODELSERVER_CONTAINER_PROGRAM"
        )

    def sweep(self, runtime: ContainerRuntime, marks: Collection[str]) -> None:
        """Remove this launcher's containers that have no record any more."""
        known = {container_name(mark) for mark in marks}
        label = f"label={OWNER_LABEL}={self._owner}"
        for name in _names(runtime.program, label):
            if name.startswith(NAME_PREFIX) and name not in known:
                fault = remove(runtime.program, name)
                _log.warning(
                    "container=%s was left behind: %s", name, fault or "removed"
                )


def require_image(runtime: ContainerRuntime, image: str) -> None:
    """Raises ConfigurationError where an image is not on this host; pulls nothing."""
    if fault := _call(runtime.program, "image", "inspect", image).fault:
        raise ConfigurationError(
            f"image {image} is not on this host, and no start pulls it; run: "
            f"{runtime.program} pull {image} ({fault})"
        )


def remove(program: str, name: str) -> str:
    """End a container and its processes by force; returns why it is still there, or "".

    Nothing happens if there is none.
    """
    deadline = time.monotonic() + REMOVE_SECONDS
    fault = ""
    while _exists(program, name):
        if fault and time.monotonic() > deadline:
            return fault
        # First kill: podman's rm waits ten seconds for an engine that hangs.
        _call(program, "kill", name)
        done = _call(program, "rm", "--force", "--volumes", name)
        # What watches the container may be removing it as well.
        fault = done.fault or "it is still there"
    return ""


def first_pid(program: str, name: str) -> int:
    """The number of a container's first process on this host, 0 if it has none yet."""
    done = _call(program, "inspect", "--format", "{{.State.Pid}}", name)
    text = done.output.strip()
    return int(text) if not done.fault and text.isdigit() else 0


def _exists(program: str, name: str) -> bool:
    # Where the question fails, it counts as there.
    done = _call(program, *_list(f"name=^{name}$"))
    return bool(done.fault) or name in done.output.split()


def _names(program: str, condition: str) -> list[str]:
    done = _call(program, *_list(condition))
    return [] if done.fault else done.output.split()


def _list(condition: str) -> tuple[str, ...]:
    return ("ps", "--all", "--filter", condition, "--format", "{{.Names}}")


@dataclass(frozen=True, slots=True)
class _Done:
    """How a call ended."""

    output: str
    #: "" where it went well.
    fault: str


def _call(program: str, *arguments: str) -> _Done:
    try:
        done = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=CALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _Done("", f"`{arguments[0]}` took more than {CALL_SECONDS:g} s")
    except OSError as error:
        return _Done("", str(error))
    if done.returncode == 0:
        return _Done(done.stdout, "")
    lines = done.stderr.strip().splitlines()
    return _Done(done.stdout, lines[-1] if lines else f"exit code {done.returncode}")


def main(images: list[str]) -> None:
    """``python -m launcher.host.containers IMAGE ...``: can engines run in them here?

    Prints JSON: each image with what is wrong with it, "" where nothing is.
    """
    containers = Containers(load().container_program, owner="")
    print(
        json.dumps({image: _image_fault(containers.find(), image) for image in images})
    )


def _image_fault(runtime: ContainerRuntime | str, image: str) -> str:
    if isinstance(runtime, str):
        return runtime
    try:
        require_image(runtime, image)
    except ConfigurationError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    main(sys.argv[1:])
