"""Which engines the fleet wants, and on which host each of them belongs."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from modelserver.model import Desired, Drop, EngineSpec, ModelSpec, Snapshot, Want

#: Engines of this type run elsewhere, so they exist only where a pin names their URL.
EXTERNAL = "external"


@dataclass
class _Room:
    """What the live hosts still have to give while engines are being placed."""

    gpus: dict[str, int]
    engines: Counter[str] = field(default_factory=Counter)

    def fits(self, host: str, gpus: int) -> bool:
        return host in self.gpus and gpus <= max(0, self.gpus[host])

    def take(self, host: str, gpus: int) -> None:
        self.engines[host] += 1
        if host in self.gpus:
            self.gpus[host] -= gpus

    def emptiest(self, gpus: int) -> str:
        """The live host with the fewest engines that has room; "" if none has."""
        hosts = [host for host in self.gpus if self.fits(host, gpus)]
        return min(hosts, key=lambda host: (self.engines[host], host), default="")


def place(snapshot: Snapshot) -> tuple[Want | Drop, ...]:
    """The changes that take the present wishes to the wanted ones.

    A wish whose host lives and has room stays where it is. An engine that fits on no
    live host keeps the wish it has, if any: it may fit when its host comes back.
    """
    wanted = _wanted(snapshot.specs, snapshot.pins)
    placed = _placed(wanted, snapshot)
    wants = [
        Want(spec)
        for spec in placed
        if spec.id not in snapshot.desired or snapshot.desired[spec.id].spec != spec
    ]
    ids = {spec.id for spec in wanted}
    return (*wants, *_drops(ids, snapshot))


def _drops(wanted: set[str], snapshot: Snapshot) -> list[Drop]:
    models = {spec.name for spec in snapshot.specs}
    drops = []
    for engine, desired in snapshot.desired.items():
        model = desired.spec.model
        if model not in models:
            drops.append(Drop(engine, f"model {model} left the fleet"))
        elif engine not in wanted:
            drops.append(Drop(engine, f"model {model} wants fewer engines"))
    return drops


def _wanted(
    models: Iterable[ModelSpec], pins: Iterable[EngineSpec]
) -> list[EngineSpec]:
    """The pins, then as many more of each model as its min_engines asks for.

    An engine with an empty host may run on any.
    """
    wanted = list(pins)
    pinned = Counter(pin.model for pin in wanted)
    for model in models:
        if model.engine == EXTERNAL:
            continue
        numbers = range(pinned[model.name], model.min_engines)
        wanted += [EngineSpec(f"{model.name}-{n}", model.name, "") for n in numbers]
    return wanted


def _placed(wanted: list[EngineSpec], snapshot: Snapshot) -> list[EngineSpec]:
    """The wanted engines that have a host: named ones first, then kept, then new."""
    gpus = {model.name: model.gpus for model in snapshot.specs}
    room = _Room({host.name: len(host.gpus) for host in snapshot.hosts})
    hosts: dict[str, str] = {}

    def settle(spec: EngineSpec, host: str) -> None:
        hosts[spec.id] = host
        room.take(host, _need(spec, gpus))

    for spec in wanted:
        if spec.host:
            settle(spec, spec.host)
    for spec in wanted:
        host = _present_host(spec, snapshot.desired)
        if not spec.host and room.fits(host, _need(spec, gpus)):
            settle(spec, host)
    for spec in wanted:
        host = "" if spec.id in hosts else room.emptiest(_need(spec, gpus))
        if host:
            settle(spec, host)
    return [replace(spec, host=hosts[spec.id]) for spec in wanted if spec.id in hosts]


def _present_host(spec: EngineSpec, desired: Mapping[str, Desired]) -> str:
    return desired[spec.id].spec.host if spec.id in desired else ""


def _need(spec: EngineSpec, gpus: Mapping[str, int]) -> int:
    return 0 if spec.url else len(spec.gpus) or gpus.get(spec.model, 0)
