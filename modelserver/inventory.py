"""What the hosts have: GPUs as their drivers describe them. All values are frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, field

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that holds memory of a GPU. ``used`` is bytes, 0 where unknown.

    ``engine`` names the engine of this host that it belongs to, "" for anybody else's.
    """

    pid: int
    used: int = 0
    owner: str = ""
    command: str = ""
    engine: str = ""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of a host, or one slice of a GPU that MIG divides. Sizes are bytes.

    ``missing`` says for each field that could not be read why: a lost GPU has no
    ``total``. ``fault`` is set where nothing may be started on it, with the reason.
    """

    index: int
    uuid: str
    name: str = ""
    total: int = 0
    used: int = 0
    free: int = 0
    utilization: float | None = None
    temperature: int | None = None
    power_watts: float | None = None
    throttled: tuple[str, ...] = ()
    xids: tuple[int, ...] = ()
    mig: str = ""
    fault: str = ""
    processes: tuple[GpuProcess, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def free_share(self) -> float:
        """The part of its memory that nobody holds, 0 to 1."""
        return self.free / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Host:
    """A host whose launcher has reported within its lease.

    ``driver`` is the driver's version, or why there are no GPUs to be seen.
    """

    name: str
    gpus: tuple[Gpu, ...] = ()
    pid: int = 0
    driver: str = ""
