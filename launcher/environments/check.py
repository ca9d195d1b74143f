"""Looks at what engines on this host could clash with; ``findings`` judges it."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import resource
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from launcher.environments import findings
from launcher.environments.findings import Finding, problem, warning
from launcher.environments.paths import (
    MARKER,
    Installed,
    engines_folder,
    hub_folder,
    installed,
    python_of,
)
from launcher.host.gpus import GpuInventory
from modelserver.user import find_home

#: Seconds in which an environment's interpreter must start; a slower one is broken.
INTERPRETER_START_SECONDS = 30.0
#: The version of CUDA in the ``version.py`` of torch.
CUDA_OF_TORCH = re.compile(r"^cuda.*= ?'([\d.]+)'", re.M)


def examine(home: Path, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Each finding once it is known; works without a GPU and without an environment."""
    environments = installed(home)
    builds = {_called(each): cuda_of(each.path) for each in environments}
    inventory = GpuInventory()
    gpus = inventory.read()
    for each in environments:
        name = _called(each)
        yield _interpreter(each)
        yield findings.driver(name, builds[name], inventory.driver)
    yield from _incomplete(home)
    on_gpus = bool(gpus) and any(builds.values())
    yield findings.glibc(*platform.libc_ver())
    yield findings.library("libcuda.so.1", _loads("libcuda.so.1"), on_gpus)
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    compiler = shutil.which(environ.get("CC") or "cc") or shutil.which("gcc") or ""
    yield findings.compiler(compiler, headers.is_file(), on_gpus)
    yield _kernels(environ, environments)
    yield _disk("disk for environments", home)
    yield _disk("disk for weights", hub_folder(environ))
    yield findings.files(*_limits(resource.RLIMIT_NOFILE))
    yield findings.memlock(_limits(resource.RLIMIT_MEMLOCK)[0], len(gpus))
    if Path("/dev/shm").is_dir():
        yield findings.shared_memory(shutil.disk_usage("/dev/shm").total)


def cuda_of(environment: Path) -> str:
    """The CUDA that an environment's torch is built for, "" for a CPU build."""
    for file in environment.glob("lib/python3*/site-packages/torch/version.py"):
        found = CUDA_OF_TORCH.search(file.read_text(encoding="utf-8"))
        return found[1] if found else ""
    return ""


def stale_bytes(folder: Path, before: float) -> int:
    """Bytes of the files below a folder that were last used before a time."""
    total = 0
    for parent, _, files in os.walk(folder):
        for file in files:
            with suppress(OSError):
                status = (Path(parent) / file).lstat()
                last = max(status.st_mtime, status.st_atime)
                total += status.st_blocks * 512 if last < before else 0
    return total


def _called(environment: Installed) -> str:
    return f"{environment.name} {environment.version}"


def _interpreter(environment: Installed) -> Finding:
    what = f"environment {_called(environment)}"
    python = python_of(environment.path)
    try:
        done = subprocess.run(
            [str(python), "-c", ""],
            capture_output=True,
            timeout=INTERPRETER_START_SECONDS,
        )
        starts = done.returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        starts = False
    if starts:
        return Finding(what, f"{python}, torch {environment.torch_version}")
    requirement = f"{environment.name}=={environment.version}"
    remedy = f"run: modelserver engines remove {requirement}, then install it again"
    return problem(what, f"{python} does not start", remedy)


def _incomplete(home: Path) -> Iterator[Finding]:
    whole = {each.path for each in installed(home)}
    for path in sorted(engines_folder(home).glob("*/")):
        if path not in whole:
            why = (
                "unknown to this version"
                if (path / MARKER).exists()
                else "unfinished, or being installed just now"
            )
            remedy = f"install its engine again, or remove the folder: rm -r {path}"
            yield warning(f"environment {path.name}", f"{path} is {why}", remedy)


def _kernels(environ: Mapping[str, str], environments: Sequence[Installed]) -> Finding:
    named = environ.get("TRITON_CACHE_DIR")
    folder = Path(named) if named else find_home() / ".triton" / "cache"
    there = _existing(folder)
    oldest = min(
        ((each.path / MARKER).stat().st_mtime for each in environments), default=0.0
    )
    return findings.kernels(
        str(folder),
        writable=os.access(there, os.W_OK | os.X_OK),
        executable=not os.statvfs(there).f_flag & os.ST_NOEXEC,
        stale_bytes=stale_bytes(folder, oldest),
    )


def _disk(what: str, folder: Path) -> Finding:
    free = shutil.disk_usage(_existing(folder)).free
    return findings.disk(what, str(folder), free)


def _existing(folder: Path) -> Path:
    absolute = folder.absolute()
    return next(path for path in (absolute, *absolute.parents) if path.exists())


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _limits(kind: int) -> tuple[int, int]:
    return resource.getrlimit(kind)
