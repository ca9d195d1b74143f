"""Which port and which GPUs each engine of this host has.

Control chooses the GPUs by reports that are a second or two old; they are looked at
again here, right before a start.
"""

import asyncio
import random
import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import psutil

from launcher.engine_types import LOOPBACK, Place
from launcher.host.gpu_turns import GpuTurns
from launcher.host.listeners import command_line
from modelserver.inventory import Gpu, Host
from modelserver.policy.placement.needs import Need
from modelserver.policy.placement.rooms import GpuRoom, HostRoom
from modelserver.values import EngineSpec, ModelSpec, split_engine_id

#: The first port that engines get. The range lies below Kubernetes' node ports (30000
#: to 32767) and those that the kernel takes for outgoing connections (from 32768).
FIRST_PORT = 21_000
#: The last port that engines get.
LAST_PORT = 23_999


@dataclass(slots=True)
class _Allocated:
    place: Place
    need: Need
    #: Whether the engine has taken its memory.
    loaded: bool


class Allocation:
    """Gives engines their places, one at a time, so that no two get the same.

    ``read`` gives the host's GPUs as they are now, ``turns`` are those of this host.
    """

    def __init__(
        self,
        host: str,
        read: Callable[[], tuple[Gpu, ...]],
        turns: GpuTurns | None = None,
    ) -> None:
        self._host = host
        self._read = read
        self._allocated: dict[str, _Allocated] = {}
        self._turns = turns or GpuTurns()
        self._lock = asyncio.Lock()

    async def allocate(self, spec: EngineSpec, model: ModelSpec) -> Place | str:
        """Give an engine a place, or say why there is none now."""
        async with self._lock:
            self.release(spec.id)
            need = Need.of(spec, model)
            place = await asyncio.to_thread(self._take, spec, need)
            if isinstance(place, Place):
                place = replace(place, index=split_engine_id(spec.id)[1])
                if need.nodes > 1:
                    port = find_port({place.port, *self._ports()})
                    place = replace(place, meeting_port=port or 0)
                self._allocated[spec.id] = _Allocated(place, need, loaded=False)
            else:
                self._turns.give_back(spec.id)
            return place

    async def find_refusal(self, spec: EngineSpec, model: ModelSpec) -> str:
        """Why an engine would get no place now, "" where it would."""
        async with self._lock:
            need = Need.of(spec, model)
            place = await asyncio.to_thread(self._choose, spec, need)
            return place if isinstance(place, str) else ""

    def adopt(
        self, spec: EngineSpec, model: ModelSpec, place: Place, loaded: bool, mark: str
    ) -> None:
        """Note the place of an engine that an earlier launcher started."""
        self._allocated[spec.id] = _Allocated(place, Need.of(spec, model), loaded)
        self.keep(spec.id, mark)
        if not loaded:
            self._turns.find_other(spec.id, place.uuids)

    def keep(self, engine: str, mark: str) -> tuple[int, ...]:
        """Keep other launchers from the GPUs of an engine that shares them with none.

        Returns the descriptors by which its processes, which have this mark, keep them
        as well.
        """
        given = self._allocated.get(engine)
        if given is None or given.need.shares:
            return ()
        return self._turns.keep(engine, given.place.uuids, mark)

    def mark_loaded(self, engine: str) -> None:
        """Note that an engine has taken its memory."""
        if given := self._allocated.get(engine):
            given.loaded = True
        self._turns.end_loading(engine)

    def release(self, engine: str) -> None:
        """Take an engine's place back."""
        self._allocated.pop(engine, None)
        self._turns.give_back(engine)

    def _take(self, spec: EngineSpec, need: Need) -> Place | str:
        place = self._choose(spec, need)
        if isinstance(place, str) or not need.gpus:
            return place
        other = self._turns.find_other(spec.id, place.uuids)
        if other is None:
            # Another launcher may have loaded something since the first look.
            return self._choose(spec, need)
        uuid, who = other
        index = place.gpus[place.uuids.index(uuid)]
        return f"waits until the launcher {who} has loaded an engine on gpu {index}"

    def _choose(self, spec: EngineSpec, need: Need) -> Place | str:
        if not need.allows(self._host):
            return f"its model's hosts are {', '.join(need.hosts)}"
        port = self._port(spec)
        if isinstance(port, str) or not need.gpus:
            return port if isinstance(port, str) else Place(port)
        if not (spec.uuids or spec.gpus):
            return "control has found no GPUs for it yet; see modelserver status"
        host = HostRoom(Host(self._host, self._read()))
        for engine, given in self._allocated.items():
            for room in _rooms(host, given.place):
                room.claims[engine] = given.need
                if given.loaded:
                    room.started.add(engine)
        rooms = self._find_rooms(spec, host)
        if isinstance(rooms, str):
            return rooms
        refusals = [room.refusal(need, spec.id) for room in rooms]
        if any(refusals):
            return f"needs {need}; {', '.join(filter(None, refusals))}"
        return self._wait_for(rooms) or _place(port, need, rooms, host)

    def _find_rooms(self, spec: EngineSpec, host: HostRoom) -> list[GpuRoom] | str:
        if not spec.uuids:
            return host.at(spec.gpus)
        found = host.find(spec.uuids)
        missing = set(spec.uuids) - {room.gpu.uuid for room in found}
        if missing:
            return f"gpu {min(missing)} is not on host {host.name} any more"
        return sorted(found, key=lambda room: spec.uuids.index(room.gpu.uuid))

    def _wait_for(self, rooms: list[GpuRoom]) -> str:
        """Engines measure what is free while they load, so they do that in turn."""
        for room in rooms:
            for engine in sorted(room.claims):
                if not self._allocated[engine].loaded:
                    return f"waits until engine {engine} has loaded on {room.gpu.label}"
        return ""

    def _port(self, spec: EngineSpec) -> int | str:
        if not spec.port:
            port = find_port(self._ports())
            return port or (
                f"no port from {FIRST_PORT} to {LAST_PORT} is free on this "
                "host; end what holds them"
            )
        if is_port_free(spec.port):
            return spec.port
        return (
            f"port {spec.port} is held by {port_holder(spec.port)}; end that process, "
            "or give this engine another port in the fleet file"
        )

    def _ports(self) -> set[int]:
        places = [given.place for given in self._allocated.values()]
        return {port for each in places for port in (each.port, each.meeting_port)}


def _rooms(host: HostRoom, place: Place) -> list[GpuRoom]:
    if place.uuids:
        return host.find(place.uuids)
    return [room for room in host.rooms if room.gpu.index in place.gpus]


def _place(port: int, need: Need, rooms: list[GpuRoom], host: HostRoom) -> Place:
    gpus = [room.gpu for room in rooms]
    return Place(
        port,
        gpus=tuple(gpu.index for gpu in gpus),
        uuids=tuple(gpu.uuid for gpu in gpus),
        is_renumbered=any(each.gpu.mig or not each.gpu.total for each in host.rooms),
        free_bytes=min(gpu.free for gpu in gpus),
        total_bytes=min(gpu.total for gpu in gpus),
        promised_bytes=need.each,
    )


def find_port(taken: Collection[int]) -> int | None:
    """A free port that no other engine has, None if there is none."""
    count = LAST_PORT - FIRST_PORT + 1
    begin = random.randrange(count)
    for step in range(count):
        port = FIRST_PORT + (begin + step) % count
        if port not in taken and is_port_free(port):
            return port
    return None


def is_port_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        # As servers do it: old connections of an ended server do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def port_holder(port: int) -> str:
    """Who listens on a port, as far as this user may see."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.Error:
        return "a process of another user"
    for connection in connections:
        listens = connection.status == psutil.CONN_LISTEN
        if listens and connection.laddr.port == port and connection.pid:
            return f"pid {connection.pid} ({command_line(connection.pid)})"
    return "a process of another user"
