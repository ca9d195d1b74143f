"""What the hosts have: GPUs as their drivers describe them. All values are frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelserver.values import NodeReport

#: Bytes of a GiB.
GIB = 1024**3
#: A disk is nearly full with less than this share of it left ...
SHORT_DISK_SHARE = 0.05
#: ... and less than this, in bytes.
SHORT_DISK_BYTES = 10 * GIB
#: File systems that several hosts share, beside NFS.
REMOTE_FILE_SYSTEMS = (
    *("ceph", "cifs", "fuse.sshfs", "glusterfs", "lustre", "smb3"),
    *("beegfs", "fuse.glusterfs", "fuse.juicefs", "gpfs", "panfs", "wekafs"),
)
#: Processes of a GPU that a message names at most; it counts the others.
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
    """A process that holds memory of a GPU. Sizes are bytes."""

    pid: int
    #: Bytes that it holds, 0 where unknown.
    used: int = 0
    #: The login of its user, "" where unknown.
    owner: str = ""
    #: The name of its program.
    command: str = ""
    #: The engine of this host that it belongs to, "" for anybody else's.
    engine: str = ""

    def __str__(self) -> str:
        """Whom to ask: "engine m-0", "pid 4711 python (anna)", "pid 4711"."""
        if self.engine:
            return f"engine {self.engine}"
        owner = f"({self.owner})" if self.owner else ""
        return " ".join(filter(None, (f"pid {self.pid}", self.command, owner)))


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of a host, or one slice of a GPU that MIG divides. Sizes are bytes."""

    #: Its number on its host; slices share that of their GPU.
    index: int
    uuid: str
    name: str = ""
    total: int = 0
    used: int = 0
    free: int = 0
    #: The share of the time that it computed, 0 to 1; None where unknown.
    utilization: float | None = None
    #: Degrees Celsius, None where unknown.
    temperature: int | None = None
    power_watts: float | None = None
    #: Why it runs slower than it could.
    throttled: tuple[str, ...] = ()
    #: The numbers of its last errors, as the driver reports them.
    xids: tuple[int, ...] = ()
    #: The number of a slice, "" for a whole GPU.
    mig: str = ""
    #: The indexes of the GPUs that NVLink connects it with.
    links: tuple[int, ...] = ()
    #: Why nothing may be started on it, "" where it is well.
    fault: str = ""
    #: Why its launcher gives it to no engine, "" where it does.
    left_out: str = ""
    #: What is wrong with it and keeps nobody away.
    notes: tuple[str, ...] = ()
    #: Who holds its memory, as far as that can be seen.
    processes: tuple[GpuProcess, ...] = ()
    #: Bytes that this host's engines may hold: its launcher cannot see whose they are.
    unseen: int = 0
    #: Why a field could not be read, by field; a lost GPU has no ``total``.
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
class Disk:
    """A file system that a host keeps something on. Sizes are bytes."""

    #: The folder that is on it.
    path: str
    free: int
    total: int
    #: The kind of file system: "ext4", "nfs4", "" where unknown.
    kind: str = ""

    @property
    def is_short(self) -> bool:
        """Whether it is nearly full."""
        return self.free < min(SHORT_DISK_SHARE * self.total, SHORT_DISK_BYTES)

    @property
    def is_remote(self) -> bool:
        """Whether other hosts see it too."""
        return self.kind.startswith("nfs") or self.kind in REMOTE_FILE_SYSTEMS


@dataclass(frozen=True, slots=True)
class Host:
    """A host whose launcher has reported within its lease."""

    name: str
    gpus: tuple[Gpu, ...] = ()
    #: The launcher's process.
    pid: int = 0
    #: The driver's version, or why there are no GPUs to be seen.
    driver: str = ""
    #: The version of the applied fleet that the launcher goes by.
    fleet: int = 0
    #: The share of its processors' time that was used of late, 0 to 1.
    busy: float = 0.0
    #: Where its logs, its environments and its engines' temporary files lie.
    disks: tuple[Disk, ...] = ()
    #: How far its clock is ahead of that of the store, in seconds.
    clock_ahead_seconds: float = 0.0
    #: What it runs of engines that are led from other hosts.
    nodes: tuple[NodeReport, ...] = ()
    #: What its launcher fails at now, each with what to do behind a semicolon.
    troubles: tuple[str, ...] = ()
