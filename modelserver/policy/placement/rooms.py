"""What hosts and their GPUs still have to give, and why an engine fits nowhere."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from modelserver.inventory import GIB, Gpu, Host, gib
from modelserver.policy.placement.needs import Need
from modelserver.values import EngineState

#: Share of a GPU's memory that must be free for an engine that needs all of it.
FREE_SHARE = 0.85
#: Hosts that a reason names at most, those that come nearest.
HOSTS_NAMED = 3
#: GPUs of each host that a reason names at most.
GPUS_NAMED = 4

#: The states in which an engine may hold memory of its GPUs.
HOLDING = frozenset(
    {
        EngineState.STARTING,
        EngineState.READY,
        EngineState.DEGRADED,
        EngineState.DRAINING,
        EngineState.UNKNOWN,
    }
)


class _Problem(Enum):
    LEFT_OUT = auto()
    OTHER_KIND = auto()
    FAULTY = auto()
    SILENT = auto()
    SLICE = auto()
    TAKEN = auto()
    FULL = auto()


class GpuRoom:
    """One GPU, and what engines have been promised of it."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.claims: dict[str, Need] = {}
        #: The engines with a claim that have been started.
        self.started: set[str] = set()
        self._held: dict[str, int] = {}
        for process in gpu.processes:
            if process.engine:
                held = self._held.get(process.engine, 0)
                self._held[process.engine] = held + process.used

    @property
    def whole(self) -> bool:
        """Whether an engine that needs all of a GPU could have it."""
        return self._find_problem(Need(1), "") is None

    def spare(self, engine: str = "") -> int:
        """Bytes that can be promised to this engine.

        Each other engine counts with the greater of its promise and what it holds; what
        anybody else holds is not free. What the engine itself holds is its own. Memory
        of which nobody can see whose it is belongs to the engines that were started.
        """
        owed = {
            name: max(0, (claim.each or self.gpu.total) - self._held.get(name, 0))
            for name, claim in self.claims.items()
            if name != engine
        }
        started = sum(size for name, size in owed.items() if name in self.started)
        left = sum(owed.values()) - min(started, self.gpu.unseen)
        return max(0, self.gpu.free + self._held.get(engine, 0) - left)

    def fits(self, need: Need, engine: str = "") -> bool:
        """Whether this GPU can be one of those that the engine needs."""
        return self._find_problem(need, engine) is None

    def refusal(self, need: Need, engine: str = "") -> str:
        """Why it cannot, with the figures; "" where it can."""
        name = self.gpu.label
        match self._find_problem(need, engine):
            case None:
                return ""
            case _Problem.LEFT_OUT:
                return f"{name} is left out: {self.gpu.left_out}"
            case _Problem.OTHER_KIND:
                kind = self.gpu.name or "of an unknown name"
                return f"{name} is {kind} with {gib(self.gpu.total)}"
            case _Problem.FAULTY:
                return f"{name} is faulty: {self.gpu.fault}"
            case _Problem.SILENT:
                why = self.gpu.missing.get("memory", "")
                return f"{name} does not answer" + (f" ({why})" if why else "")
            case _Problem.SLICE:
                slice_ = f"{name} is a MIG slice"
                if not need.slices:
                    return f"{slice_}, on which vLLM has not been run"
                return f"{slice_}, and an engine can use only one"
            case _Problem.TAKEN:
                others = sorted((self.claims.keys() | self._held.keys()) - {engine})
                return f"{name} has engine {', '.join(others)}"
        promised = [
            f"{gib(claim.each or self.gpu.total)} promised to engine {other}"
            for other, claim in sorted(self.claims.items())
            if other != engine and not self._held.get(other)
        ]
        causes = ", ".join(filter(None, (self.gpu.holders, *promised)))
        return f"{name} has {gib(self.spare(engine))} free" + f": {causes}" * bool(
            causes
        )

    def _find_problem(self, need: Need, engine: str) -> _Problem | None:
        gpu = self.gpu
        if gpu.left_out:
            return _Problem.LEFT_OUT
        if gpu.fault:
            return _Problem.FAULTY
        if not gpu.total:
            return _Problem.SILENT
        if need.name.lower() not in gpu.name.lower() or gpu.total < need.least:
            return _Problem.OTHER_KIND
        if gpu.mig and (need.gpus > 1 or not need.slices):
            return _Problem.SLICE
        for name, claim in self.claims.items():
            if name != engine and not (need.shares and claim.shares):
                return _Problem.TAKEN
        if not need.shares and any(name != engine for name in self._held):
            return _Problem.TAKEN
        least = need.each or FREE_SHARE * gpu.total
        return _Problem.FULL if self.spare(engine) < least else None


@dataclass(frozen=True, slots=True)
class RoomOffer:
    """GPUs of a host for an engine; the smaller ``cost``, the less is broken up."""

    uuids: tuple[str, ...]
    cost: tuple[int, ...]


class HostRoom:
    """One live host: its GPUs, and the engines that have been placed on it."""

    def __init__(self, host: Host) -> None:
        self.name = host.name
        gpus = sorted(host.gpus, key=lambda gpu: (gpu.index, gpu.uuid))
        self.rooms = [GpuRoom(gpu) for gpu in gpus]
        self.engines = 0

    def find(self, uuids: Iterable[str]) -> list[GpuRoom]:
        """The GPUs with these UUIDs, as far as they are there."""
        wanted = set(uuids)
        return [room for room in self.rooms if room.gpu.uuid in wanted]

    def at(self, indexes: Sequence[int]) -> list[GpuRoom] | str:
        """The GPUs with these indexes, in this order; or which one there is not."""
        found = []
        for index in indexes:
            rooms = [room for room in self.rooms if room.gpu.index == index]
            if len(rooms) > 1:
                return (
                    f"gpu {index} is pinned, and MIG divides it into {len(rooms)} "
                    "slices; leave gpus out"
                )
            if not rooms:
                number = len({room.gpu.index for room in self.rooms})
                count = f"{number} GPU{'s' * (number != 1)}"
                return f"gpu {index} is pinned, and host {self.name} has {count}"
            found += rooms
        return found

    def claim(
        self, engine: str, need: Need, uuids: Iterable[str], started: bool = False
    ) -> None:
        """Promise these GPUs to an engine, which counts as one of this host."""
        self.engines += 1
        for room in self.find(uuids):
            room.claims[engine] = need
            if started:
                room.started.add(engine)

    def find_offer(self, need: Need, engine: str = "") -> RoomOffer | None:
        """The GPUs that suit best, None where there are not enough.

        All of an engine's are of one kind, and linked by NVLink rather than not. What
        ``engine`` holds is free for it.
        """
        offers = self.find_offers(need, engine).values()
        return min(offers, key=lambda each: each.cost) if offers else None

    def find_offers(self, need: Need, engine: str = "") -> dict[str, RoomOffer]:
        """The same for each kind of GPU that there are enough of."""
        if not need.allows(self.name):
            return {}
        if not need.gpus:
            return {"": RoomOffer((), (self.engines,))}
        fitting = [room for room in self.rooms if room.fits(need, engine)]
        offers = {
            kind: self._offer(need, engine, [r for r in fitting if r.gpu.name == kind])
            for kind in sorted({room.gpu.name for room in fitting})
        }
        return {kind: offer for kind, offer in offers.items() if offer}

    def _offer(
        self, need: Need, engine: str, fitting: list[GpuRoom]
    ) -> RoomOffer | None:
        """The best of GPUs of one kind.

        One that is used already comes before a whole one, and the fullest first; then
        one whose partners by NVLink are used, so that pairs stay whole; then by index.
        """
        if len(fitting) < need.gpus:
            return None
        whole = {room.gpu.uuid for room in self.rooms if room.whole}
        free = {room.gpu.index for room in self.rooms if room.gpu.uuid in whole}

        def cost(room: GpuRoom) -> tuple[bool, int, int]:
            spare = room.spare(engine) // GIB if need.each else 0
            return (room.gpu.uuid in whole, spare, len(free & set(room.gpu.links)))

        chosen = choose_linked(sorted(fitting, key=cost), need.gpus)
        broken = sum(room.gpu.uuid in whole for room in chosen)
        spare = sum(room.spare(engine) // GIB for room in chosen)
        uuids = tuple(room.gpu.uuid for room in sorted(chosen, key=_slot))
        strangers = need.gpus * (need.gpus - 1) // 2 - count_links(chosen)
        order = (strangers, _size_order(need, chosen), broken, len(whole), spare)
        return RoomOffer(uuids, (*order, self.engines))


def _size_order(need: Need, chosen: Sequence[GpuRoom]) -> int:
    """Sorts GPUs of different sizes, for an engine that takes whole ones.

    It gets the smallest of the size that it needs; the largest where it does not say.
    """
    if need.each:
        return 0
    size = sum(room.gpu.total // GIB for room in chosen)
    return size if need.least else -size


def choose_linked(rooms: Sequence[GpuRoom], number: int) -> Sequence[GpuRoom]:
    """So many of these GPUs with the most links among them, the first where equal."""
    best, pairs = rooms[:number], number * (number - 1) // 2
    for seed in rooms if count_links(best) < pairs else ():
        group = [seed]
        while len(group) < number:
            others = [room for room in rooms if room not in group]
            group.append(max(others, key=lambda room: _links_into(room, group)))
        if count_links(group) > count_links(best):
            best = group
    return best


def count_links(rooms: Sequence[GpuRoom]) -> int:
    """How many pairs of these GPUs NVLink connects."""
    return sum(_links_into(room, rooms[:place]) for place, room in enumerate(rooms))


def _links_into(room: GpuRoom, group: Sequence[GpuRoom]) -> int:
    return sum(each.gpu.index in room.gpu.links for each in group)


def _slot(room: GpuRoom) -> tuple[int, str]:
    return (room.gpu.index, room.gpu.uuid)


def why_nowhere(
    need: Need, hosts: Sequence[HostRoom], drained: Collection[str] = ()
) -> str:
    """Why none of these hosts can take an engine with this need.

    ``drained`` are hosts that get no engines, though they may report.
    """
    hosts = [host for host in hosts if need.allows(host.name)]
    closed = [name for name in sorted(drained) if need.allows(name)]
    if not hosts and closed:
        names = ", ".join(closed)
        which = f"only drained hosts could have it now: {names}"
        return f"{which}; modelserver undrain-host opens one again"
    if not hosts and need.hosts:
        return f"no launcher of its model's hosts reports: {', '.join(need.hosts)}"
    if not hosts:
        return "no launcher reports; start one on each host with engines"
    near = sorted(hosts, key=lambda host: (-_fitting(host, need), host.name))
    parts = [
        f"host {host.name} has room"
        if host.find_offer(need)
        else why_not_on(need, host)
        for host in near[:HOSTS_NAMED]
    ]
    if len(hosts) > HOSTS_NAMED:
        more = len(hosts) - HOSTS_NAMED
        parts.append(f"and {more} more host{'s' * (more > 1)}")
    return "; ".join([f"needs {need}", *parts])


def why_not_on(need: Need, host: HostRoom, engine: str = "") -> str:
    """What is wrong with the GPUs of one host."""
    if not need.allows(host.name):
        return f"its model's hosts are {', '.join(need.hosts)}"
    number = len(host.rooms)
    if not number:
        return f"host {host.name} has no GPUs"
    refusals = [room.refusal(need, engine) for room in host.rooms]
    bad = [refusal for refusal in refusals if refusal]
    parts = bad[:GPUS_NAMED]
    if len(bad) > GPUS_NAMED:
        parts.append(f"and {len(bad) - GPUS_NAMED} more")
    good = number - len(bad)
    if not bad or good:
        has = f"{good} of {number} GPU{'s' * (number > 1)} fit{'s' * (good == 1)}"
        parts.insert(0, has)
    if good >= need.gpus:
        parts.insert(1, "of different kinds")
    return f"host {host.name}: {', '.join(parts)}"


def _fitting(host: HostRoom, need: Need) -> int:
    return sum(room.fits(need) for room in host.rooms)
