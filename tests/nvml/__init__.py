"""GPUs of a machine that has none: a stub of NVML, and the file that it reads."""

import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

SOURCE = Path(__file__).with_name("stub.c")
LIBRARY = "libnvidia-ml.so.1"
GIB_IN_MIB = 1024


def build(folder: Path, *options: str) -> Path:
    """Compile the stub into a folder of its own; returns that folder."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler, (
        "the stub of NVML needs a C compiler: apt-get install gcc libc6-dev"
    )
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / LIBRARY
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(
        [compiler, *flags, *options, "-o", str(library), str(SOURCE)], check=True
    )
    return folder


@dataclass
class StubGpu:
    """One GPU; memory in GiB. ``slices`` are those of MIG: UUID and memory of each."""

    uuid: str
    total: float = 80
    used: float = 0
    name: str = "H100"
    util: int = 0
    temperature: int = 30
    watts: int = 60
    reasons: int = 0
    lost: bool = False
    #: Rows that wait to be remapped, whether one could not be, pages that wait to be
    #: retired, uncorrected errors, NVLinks that work and that do not, recovery action.
    health: tuple[int, ...] = (0, 0, 0, 0, 0, 0, 0)
    slices: dict[str, float] = field(default_factory=dict)
    processes: dict[int, float] = field(default_factory=dict)

    @property
    def held(self) -> float:
        """GiB that somebody holds."""
        return min(self.total, self.used + sum(self.processes.values()))


@dataclass
class StubNvml:
    """One host's NVML. What is changed here is seen by programs after ``write``."""

    library: Path
    path: Path
    gpus: list[StubGpu] = field(default_factory=list)
    driver: str = "570.1"
    unknown: tuple[str, ...] = ()
    #: What the functions in ``unknown`` return.
    code: int = 3
    hangs: bool = False
    xids: list[tuple[int, int]] = field(default_factory=list)
    links: list[tuple[int, int]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to find this NVML."""
        present = os.environ.get("LD_LIBRARY_PATH", "")
        paths = ":".join(filter(None, (str(self.library), present)))
        return {"LD_LIBRARY_PATH": paths, "STUB_NVML": str(self.path)}

    def write(self) -> "StubNvml":
        """Let programs see this state from now on."""
        text = "".join(f"{line}\n" for line in self._lines())
        unfinished = self.path.with_suffix(".unfinished")
        unfinished.write_text(text)
        unfinished.replace(self.path)
        return self

    def _lines(self) -> Iterable[str]:
        if self.driver:
            yield f"driver {self.driver}"
        yield from (f"unknown {name} {self.code}" for name in self.unknown)
        yield from ["hang"] * self.hangs
        yield from (f"link {one} {other}" for one, other in self.links)
        for index, gpu in enumerate(self.gpus):
            memory = f"{_mib(gpu.total)} {_mib(gpu.used)}"
            yield f"gpu {index} {gpu.uuid} {gpu.name} {memory}"
            heat = (gpu.util, gpu.temperature, gpu.watts, gpu.reasons)
            yield f"heat {index} " + " ".join(map(str, heat))
            yield f"health {index} " + " ".join(map(str, gpu.health))
            yield from [f"lost {index}"] * gpu.lost
            for place, (uuid, total) in enumerate(gpu.slices.items()):
                yield f"mig {index} {place} {uuid} {_mib(total)} 0"
            place = 0 if gpu.slices else -1
            for pid, used in gpu.processes.items():
                yield f"process {index} {place} {pid} {_mib(used)}"
        for number, (index, xid) in enumerate(self.xids, 1):
            yield f"xid {number} {index} {xid}"


def _mib(gib: float) -> int:
    return round(gib * GIB_IN_MIB)
