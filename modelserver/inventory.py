"""What the hosts have: GPUs as their drivers describe them. All values are frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, field

GIB = 1024**3
#: So many processes of a GPU are named in a message; the others are counted.
HOLDERS_NAMED = 3


def gib(size: float) -> str:
    """Bytes for people: "66 GiB", "0.5 GiB".

    >>> gib(66.2 * GIB), gib(GIB / 2)
    ('66 GiB', '0.5 GiB')
    """
    number = size / GIB
    return f"{number:.0f} GiB" if number >= 10 else f"{float(f'{number:.1f}'):g} GiB"


def _part(process: "GpuProcess") -> str:
    size = gib(process.used) if process.used else "some memory"
    return f"{size} by {process}"


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

    def __str__(self) -> str:
        """Whom to ask: "engine m-0", "pid 4711 python (anna)", "pid 4711"."""
        if self.engine:
            return f"engine {self.engine}"
        owner = f"({self.owner})" if self.owner else ""
        return " ".join(filter(None, (f"pid {self.pid}", self.command, owner)))


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
    def label(self) -> str:
        """How messages name it: "gpu 3", or "gpu 3 slice 1" where MIG divides it."""
        return f"gpu {self.index}" + (f" slice {self.mig}" if self.mig else "")

    @property
    def holders(self) -> str:
        """Who has its memory, the most first: "66 GiB held by pid 4711 python"."""
        most = sorted(self.processes, key=lambda each: (-each.used, each.pid))
        parts = [_part(process) for process in most[:HOLDERS_NAMED]]
        if len(most) > HOLDERS_NAMED:
            rest = sum(process.used for process in most[HOLDERS_NAMED:])
            others = len(most) - HOLDERS_NAMED
            parts.append(f"{gib(rest)} by {others} other processes")
        unseen = self.used - sum(process.used for process in self.processes)
        if not parts and unseen >= GIB:
            return f"{gib(unseen)} held by what cannot be seen from here"
        return ", ".join(parts).replace(" by ", " held by ", 1)


@dataclass(frozen=True, slots=True)
class Host:
    """A host whose launcher has reported within its lease.

    ``driver`` is the driver's version, or why there are no GPUs to be seen. ``fleet``
    is the version of the fleet that the launcher goes by. ``busy`` is the share of its
    processors' time that was used of late, 0 to 1.
    """

    name: str
    gpus: tuple[Gpu, ...] = ()
    pid: int = 0
    driver: str = ""
    fleet: int = 0
    busy: float = 0.0
