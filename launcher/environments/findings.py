"""What could clash on a host, judged from facts. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from launcher.environments.recipes import GB

#: The oldest driver for each major version of CUDA, by NVIDIA's tables.
OLDEST_DRIVERS = {11: 450, 12: 525, 13: 580}
#: The glibc that torch, SGLang and vLLM are built for.
OLDEST_GLIBC = (2, 28)
#: Fewer open files are too few: a worker or an engine holds hundreds of connections.
FEW_FILES = 4096
#: Less shared memory is too little: NCCL and an engine's processes exchange data there.
LITTLE_SHM_BYTES = 1 * GB
#: Less free disk is too little for a model's weights or another environment.
LITTLE_DISK_BYTES = 20 * GB
#: More bytes of kernels that nobody will use again are worth removing.
MUCH_STALE_BYTES = 1 * GB


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One thing looked at; ``remedy`` is "" where it is in order."""

    what: str
    fact: str
    level: Level = Level.OK
    remedy: str = ""


def problem(what: str, fact: str, remedy: str) -> Finding:
    """What keeps an engine from running."""
    return Finding(what, fact, Level.PROBLEM, remedy)


def warning(what: str, fact: str, remedy: str) -> Finding:
    """What may slow an engine down or end it later."""
    return Finding(what, fact, Level.WARNING, remedy)


def driver(environment: str, cuda: str, version: str) -> Finding:
    """A driver against the CUDA of an environment's torch, "" for a build without.

    ``version`` is NVML's, such as "580.65.06", or why there is none.
    """
    what = f"driver for {environment}"
    if not cuda:
        return Finding(what, "its torch is a CPU build and needs none")
    major = int(cuda.split(".")[0])
    oldest = OLDEST_DRIVERS.get(major)
    head = version.split(".")[0]
    if not head.isdigit():
        fact = f"its torch is built for CUDA {cuda}, and there is no driver ({version})"
        return warning(what, fact, "install NVIDIA's driver, or use a -cpu engine here")
    fact = f"driver {version}, torch built for CUDA {cuda}"
    if oldest is None:
        return warning(what, f"{fact}, of which nothing is known", "try one engine")
    if int(head) < oldest:
        remedy = (
            f"update the driver to {oldest} or newer, or install a version of the "
            "engine that is built for an older CUDA"
        )
        return problem(what, f"{fact}, which needs driver {oldest}", remedy)
    return Finding(what, fact)


def glibc(name: str, version: str) -> Finding:
    """The C library, by ``platform.libc_ver()``."""
    wanted = ".".join(map(str, OLDEST_GLIBC))
    remedy = f"use a distribution with glibc {wanted} or newer"
    if name != "glibc":
        return problem("C library", f"{name or 'not glibc'}", remedy)
    found = tuple(int(part) for part in version.split(".")[:2])
    if found < OLDEST_GLIBC:
        return problem("C library", f"glibc {version}", remedy)
    return Finding("C library", f"glibc {version}")


def files(soft: int, hard: int) -> Finding:
    """The limit on open files; -1 is none."""
    fact = f"{_limit(soft)} open files (at most {_limit(hard)})"
    if 0 <= soft < FEW_FILES:
        remedy = "raise it: ulimit -n 65536, or LimitNOFILE=65536 of the service"
        return warning("open files", fact, remedy)
    return Finding("open files", fact)


def memlock(soft: int, gpus: int) -> Finding:
    """The limit on locked memory in bytes, which matters between GPUs; -1 is none."""
    fact = f"{_limit(soft)} bytes may be locked"
    if gpus > 1 and soft >= 0:
        remedy = (
            "raise it: ulimit -l unlimited, or LimitMEMLOCK=infinity of the service"
        )
        return warning("locked memory", fact, remedy)
    return Finding("locked memory", fact)


def shared_memory(total_bytes: int) -> Finding:
    """The size of /dev/shm."""
    fact = f"/dev/shm has {total_bytes / GB:.1f} GB"
    if total_bytes < LITTLE_SHM_BYTES:
        remedy = "enlarge it; in a container: --ipc host, or --shm-size 8g"
        return warning("shared memory", fact, remedy)
    return Finding("shared memory", fact)


def disk(what: str, folder: str, free_bytes: int) -> Finding:
    """Room where environments or weights go."""
    fact = f"{folder} has {free_bytes / GB:.0f} GB free"
    if free_bytes < GB:
        return problem(what, fact, "free some, or choose another folder")
    if free_bytes < LITTLE_DISK_BYTES:
        return warning(what, fact, "free some: weights and environments are large")
    return Finding(what, fact)


def kernels(folder: str, writable: bool, executable: bool, stale_bytes: int) -> Finding:
    """A cache of compiled kernels; stale ones are older than every environment."""
    what = "kernel cache"
    if not writable:
        remedy = f"allow writing to {folder}, or set TRITON_CACHE_DIR to another folder"
        return problem(what, f"{folder} cannot be written to", remedy)
    if not executable:
        remedy = "set TRITON_CACHE_DIR to a folder on a disk without noexec"
        return problem(what, f"nothing in {folder} can be executed", remedy)
    fact = f"{folder} ({stale_bytes / GB:.1f} GB older than every environment)"
    if stale_bytes > MUCH_STALE_BYTES:
        return warning(what, fact, f"rm -r {folder}; what is needed comes again")
    return Finding(what, fact)


def compiler(found: str, headers: bool, needed: bool) -> Finding:
    """What Triton compiles its launchers with, when an engine for GPUs starts."""
    missing = [] if found else ["no C compiler"]
    if not headers:
        missing.append("no Python.h")
    if not missing:
        return Finding("compiler", f"{found} and Python.h")
    remedy = "install a C compiler and the headers of this Python (gcc, python3-dev)"
    judge = problem if needed else warning
    return judge("compiler", " and ".join(missing), remedy)


def library(name: str, loads: bool, needed: bool) -> Finding:
    """A library of the system that engines load."""
    if loads:
        return Finding(f"library {name}", "loads")
    if not needed:
        return Finding(f"library {name}", "is not there, and no engine here needs it")
    remedy = "install it, and see that the loader finds it (ldconfig -p)"
    return problem(f"library {name}", "cannot be loaded", remedy)


def _limit(value: int) -> str:
    return "unlimited" if value < 0 else str(value)
