"""Moves engines to hosts that have much less to do, as after a host came back. Pure.

One engine of the fleet at a time, and only of a model whose others go on serving.
"""

from collections import Counter
from dataclasses import replace
from itertools import permutations

from modelserver.policy.actions import Want
from modelserver.policy.placement.needs import Need
from modelserver.policy.placement.rooms import HostRoom
from modelserver.policy.snapshot import Snapshot
from modelserver.values import EngineSpec

#: Seconds for which every engine has to have served before one is moved: so moves are
#: this far apart, and a host that comes and goes gets none.
QUIET_SECONDS = 300.0


#: A host has much less to do when it has so many fewer times what an engine needs.
MUCH = 2


def even_out(snapshot: Snapshot, now: float) -> tuple[Want, ...]:
    """The engine that is to move now, if any.

    Asks for a fleet in which everything that is wanted serves in its place. Pinned and
    moved engines stay, and those whose model has no other that serves.
    """
    if len(snapshot.open_hosts) < 2 or not _is_quiet(snapshot, now):
        return ()
    fleet = _PlacedFleet(snapshot)
    for busy, idle in fleet.pairs():
        for spec in fleet.movable(busy):
            need = fleet.needs[spec.id]
            offer = fleet.rooms[idle].find_offer(need)
            if offer and fleet.differ(busy, idle, need):
                moved = replace(spec, host=idle, uuids=offer.uuids)
                return (Want(moved, leaves=busy),)
    return ()


def _is_quiet(snapshot: Snapshot, now: float) -> bool:
    for name, wish in snapshot.wishes.items():
        report = snapshot.engines.get(name)
        if report is None or not report.serves or report.host != wish.spec.host:
            return False
        if now - report.since < QUIET_SECONDS or wish.hold:
            return False
    return True


class _PlacedFleet:
    """The hosts with their engines, and what those have of them."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.rooms = {host.name: HostRoom(host) for host in snapshot.open_hosts}
        self.needs: dict[str, Need] = {}
        #: The GPUs that engines of each host have, and its engines without GPUs.
        self._gpus: Counter[str] = Counter()
        self._engines: Counter[str] = Counter()
        self._specs = [wish.spec for wish in snapshot.wishes.values()]
        self._pinned = {pin.id for pin in snapshot.pins} | snapshot.moved.keys()
        self._of_model = Counter(spec.model for spec in self._specs)
        models = {spec.name: spec for spec in snapshot.specs}
        for spec in self._specs:
            need = self.needs[spec.id] = Need.of(spec, models.get(spec.model))
            for place in spec.places:
                self._gpus[place.host] += need.gpus
                self._engines[place.host] += not need.gpus
                if place.host in self.rooms:
                    self.rooms[place.host].claim(spec.id, need, place.uuids)

    def differ(self, busy: str, idle: str, need: Need) -> bool:
        """Whether a host has so much more that one engine may go to the other."""
        loads = self._gpus if need.gpus else self._engines
        return loads[busy] - loads[idle] >= MUCH * max(1, need.gpus)

    def pairs(self) -> list[tuple[str, str]]:
        """Hosts to take from and to give to, those that differ most first."""

        def apart(pair: tuple[str, str]) -> int:
            return max(
                loads[pair[0]] - loads[pair[1]] for loads in (self._gpus, self._engines)
            )

        pairs = filter(lambda pair: apart(pair) >= MUCH, permutations(self.rooms, 2))
        return sorted(pairs, key=apart, reverse=True)

    def movable(self, host: str) -> list[EngineSpec]:
        """The engines that may leave it, those of the model with most of them first."""
        here = Counter(spec.model for spec in self._specs if spec.host == host)
        specs = [
            spec
            for spec in self._specs
            if spec.host == host
            and spec.id not in self._pinned
            and not spec.followers
            and self._of_model[spec.model] > 1
        ]
        return sorted(specs, key=lambda spec: (-here[spec.model], spec.id))
