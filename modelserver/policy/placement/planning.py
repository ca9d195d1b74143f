"""From the fleet and its hosts' GPUs to wishes, and to reasons where there is no room.

Where models have ranks, minimums come first, by rank; then big needs. An engine that
has been started stays; one that has not is placed anew when its GPUs are taken. The
same snapshot gives the same plan.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from modelserver.policy.actions import Drop, Want
from modelserver.policy.placement.needs import Demand, Need, turns, wanted_engines
from modelserver.policy.placement.rooms import (
    HOLDING,
    HostRoom,
    RoomOffer,
    find_best_offer,
    why_not_on,
    why_nowhere,
)
from modelserver.policy.snapshot import Snapshot
from modelserver.values import EngineSpec, EngineState

#: The states in which an engine keeps its place: it is its own memory that fills its
#: GPUs. A FATAL one has ended, and a move would start it again.
SETTLED = HOLDING | {EngineState.FATAL}
#: Who claims the GPUs that an engine gave up while others are looked for.
GIVEN_UP = "nobody"


@dataclass(frozen=True, slots=True)
class PlacementPlan:
    """What to change, and which engines wait for a place."""

    actions: tuple[Want | Drop, ...]
    #: Why an engine has no place, by the engine's id.
    waiting: Mapping[str, str] = field(default_factory=dict)


def plan(snapshot: Snapshot, demand: Demand | None = None) -> PlacementPlan:
    """Place every wanted engine, or say why it cannot be placed.

    Wanted are those of ``demand``; without one, each model's ``min_engines``.

    An engine that fits on no live host keeps the wish it has, if any: it may fit when
    its host comes back. On a live host that wish names no GPUs then.
    """
    planner = _Planner(snapshot, demand)
    planner.settle_away()
    planner.settle_returned()
    planner.settle_started()
    planner.settle_pinned()
    planner.settle_kept()
    planner.settle_ordered()
    planner.settle_new()
    planner.settle_failed()
    specs = [planner.placed[spec.id] for spec in planner.wanted if planner.has(spec)]
    wants = [Want(spec) for spec in specs if spec != planner.wish(spec)]
    drops = _drops({spec.id for spec in planner.wanted}, snapshot)
    return PlacementPlan((*wants, *drops), planner.waiting)


def _drops(ids: set[str], snapshot: Snapshot) -> list[Drop]:
    models = {spec.name for spec in snapshot.specs}
    drops = []
    for engine, wish in snapshot.wishes.items():
        model = wish.spec.model
        if model not in models:
            drops.append(Drop(engine, f"model {model} left the fleet"))
        elif engine not in ids:
            drops.append(Drop(engine, f"model {model} wants fewer engines"))
    return drops


class _Planner:
    """One run over the wanted engines; it fills ``placed`` and ``waiting``."""

    def __init__(self, snapshot: Snapshot, demand: Demand | None) -> None:
        self.wanted = [
            replace(each, host=each.host or snapshot.moved.get(each.id, ""))
            for each in wanted_engines(snapshot.specs, snapshot.pins, demand)
        ]
        self._places = demand.places if demand else {}
        self.placed: dict[str, EngineSpec] = {}
        self.waiting: dict[str, str] = {}
        self._snapshot = snapshot
        models = {spec.name: spec for spec in snapshot.specs}
        self._needs = {
            spec.id: Need.of(spec, models.get(spec.model)) for spec in self.wanted
        }
        hosts = sorted(snapshot.open_hosts, key=lambda host: host.name)
        self._hosts = {host.name: HostRoom(host) for host in hosts}
        for uuid, taker in (demand.reserved if demand else {}).items():
            if taker.host in self._hosts:
                need = Need.of(taker, models.get(taker.model))
                for room in self._hosts[taker.host].find([uuid]):
                    room.claims[taker.id] = need
        self._failed = {each.id for each in self.wanted if self._gave_up(each)}
        self._peers: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._offers: dict[Need, dict[str, RoomOffer]] = {}
        self._changed: dict[Need, set[str]] = {}
        self._nowhere: dict[Need, str] = {}
        turn = turns(self.wanted, models, demand.minimums if demand else {})
        self._by_need = sorted(
            self.wanted, key=lambda each: (turn[each.id], self._needs[each.id].rank)
        )

    def has(self, spec: EngineSpec) -> bool:
        """Whether it has been dealt with, so that later rules leave it alone."""
        return spec.id in self.placed

    def wish(self, spec: EngineSpec) -> EngineSpec | None:
        """What control has wished of it before."""
        wish = self._snapshot.wishes.get(spec.id)
        return wish.spec if wish else None

    def _settle(
        self, spec: EngineSpec, host: str, uuids: tuple[str, ...], started: bool = False
    ) -> None:
        self.placed[spec.id] = replace(spec, host=host, uuids=uuids)
        self._peers[spec.model][host] += 1
        self._hosts[host].claim(spec.id, self._needs[spec.id], uuids, started)
        for changed in self._changed.values():
            changed.add(host)

    def _leave(self, spec: EngineSpec, reason: str) -> None:
        """Place it without a claim on anything: it waits where it is."""
        self.placed[spec.id] = spec
        self.waiting[spec.id] = reason

    def _find_kept(self, spec: EngineSpec) -> EngineSpec | None:
        """Its present wish, unless the fleet file says something else by now."""
        wish = self.wish(spec)
        if wish is None or spec.host not in ("", wish.host):
            return None
        count = len(wish.uuids) in (0, self._needs[spec.id].gpus)
        same = replace(spec, host=wish.host, uuids=wish.uuids) == wish
        return wish if count and same else None

    # What has been started stays.

    def settle_away(self) -> None:
        """Keep the engines of hosts that have not been silent for long."""
        for spec in self.wanted:
            kept, why = self._find_kept(spec), self._snapshot.away.get(spec.id)
            if kept is not None and why and kept.host not in self._hosts:
                self._leave(kept, why)

    def settle_returned(self) -> None:
        """Keep the engines that serve on a host that was given up and is back."""
        for spec in self.wanted:
            if spec.id not in self._snapshot.returned or not self._find_kept(spec):
                continue
            report = self._snapshot.engines[spec.id]
            host = self._hosts.get(report.host)
            if host is None or spec.host not in ("", host.name) or self.has(spec):
                continue
            rooms = host.at(report.gpus)
            if isinstance(rooms, list) and len(rooms) == self._needs[spec.id].gpus:
                uuids = tuple(room.gpu.uuid for room in rooms)
                self._settle(spec, host.name, uuids)

    def settle_started(self) -> None:
        """Keep the engines whose start has happened where they are."""
        for spec in self.wanted:
            wish = self._find_kept(spec)
            if wish and self._is_started(wish) and not self.has(spec):
                holds = self._snapshot.engines[spec.id].state in HOLDING
                self._settle(spec, wish.host, wish.uuids, started=holds)
                self._claim_by_index(wish)

    def _is_started(self, wish: EngineSpec) -> bool:
        report = self._snapshot.engines.get(wish.id)
        return (
            report is not None
            and report.host == wish.host
            and wish.host in self._hosts
            and report.state in SETTLED
        )

    def _claim_by_index(self, wish: EngineSpec) -> None:
        """A wish that was made before its host reported names no GPUs; it has some."""
        if wish.uuids:
            return
        gpus = self._snapshot.engines[wish.id].gpus
        for room in self._hosts[wish.host].rooms:
            if room.gpu.index in gpus:
                room.claims[wish.id] = self._needs[wish.id]

    # What died twice at its start goes to other GPUs, once all others have theirs.

    def _gave_up(self, spec: EngineSpec) -> bool:
        """Whether it gives up the GPUs that it has."""
        report, wish = self._snapshot.engines.get(spec.id), self.wish(spec)
        return (
            report is not None
            and wish is not None
            and report.host == wish.host
            and report.state not in SETTLED
            and not spec.gpus
            and bool(wish.uuids)
            and set(wish.uuids) == set(report.failed_on)
        )

    def settle_failed(self) -> None:
        """Place what gave up its GPUs on others, or there again if there are none.

        Larger ones come first: it may have needed more memory than they have.
        """
        for spec in self._by_need:
            wish = self.wish(spec)
            if spec.id not in self._failed or self.has(spec) or wish is None:
                continue
            self._failed.remove(spec.id)
            host = self._hosts.get(wish.host)
            rooms = host.find(wish.uuids) if host else []
            others = [
                each for each in self._hosts.values() if spec.host in ("", each.name)
            ]
            need = self._needs[spec.id]
            size = max((room.gpu.total for room in rooms), default=0)
            larger = replace(need, least=max(need.least, size + 1))
            for room in rooms:
                room.claims[GIVEN_UP] = Need(1)
            found = find_best_offer(larger, others) or find_best_offer(need, others)
            for room in rooms:
                room.claims.pop(GIVEN_UP)
            if found:
                name, fit = found
                self._settle(spec, name, fit.uuids)
            elif spec.host:
                self._settle_on_host(spec)
            elif not self._settle_as_kept(spec):
                self._settle_anywhere(spec)

    # What the fleet file pins.

    def settle_pinned(self) -> None:
        """Place pins, those with GPUs of their own first."""
        for spec in self._by_need:
            if spec.host and spec.gpus and not self.has(spec):
                self._settle_pinned_gpus(spec)
        for spec in self._by_need:
            if spec.host and not self.has(spec) and spec.id not in self._failed:
                self._settle_on_host(spec)

    def _settle_pinned_gpus(self, spec: EngineSpec) -> None:
        host = self._hosts.get(spec.host)
        if host is None:
            self._await_host(spec)
            return
        rooms = host.at(spec.gpus)
        if isinstance(rooms, str):
            self._leave(spec, rooms)
            return
        uuids = tuple(room.gpu.uuid for room in rooms)
        need = self._needs[spec.id]
        refusals = [room.refusal(need, spec.id) for room in rooms]
        if any(refusals):
            reason = (
                f"needs {need}; host {host.name}: {', '.join(filter(None, refusals))}"
            )
            self._leave(replace(spec, uuids=uuids), reason)
        else:
            self._settle(spec, spec.host, uuids)

    def _settle_on_host(self, spec: EngineSpec) -> None:
        host = self._hosts.get(spec.host)
        if host is None:
            self._await_host(spec)
        elif not self._settle_as_kept(spec):
            need = self._needs[spec.id]
            fit = host.find_offer(need, spec.id)
            if fit is None:
                why = why_not_on(need, host, spec.id)
                self._leave(spec, f"needs {need}; {why}")
            else:
                self._settle(spec, spec.host, fit.uuids)

    def _await_host(self, spec: EngineSpec) -> None:
        # Its engine may be running there: what it has stays as it is.
        kept = self._find_kept(spec)
        self._leave(kept or spec, self._absence(spec.host))

    def _absence(self, host: str) -> str:
        """Why a host gets no engines."""
        drained = self._snapshot.drained_hosts.get(host)
        return drained or f"the launcher of host {host} does not report"

    # What has been placed and not started stays if it can.

    def settle_kept(self) -> None:
        """Keep what has a place that is still free."""
        for spec in self._by_need:
            if not (spec.host or self.has(spec) or spec.id in self._failed):
                self._settle_as_kept(spec)

    def _settle_as_kept(self, spec: EngineSpec) -> bool:
        wish, need = self._find_kept(spec), self._needs[spec.id]
        if wish is None or wish.host not in self._hosts:
            return False
        rooms = self._hosts[wish.host].find(wish.uuids)
        if len(rooms) != need.gpus or not need.allows(wish.host):
            return False
        if not all(room.fits(need, spec.id) for room in rooms):
            return False
        self._settle(spec, wish.host, wish.uuids)
        return True

    # What has been ordered to a place goes there if it can.

    def settle_ordered(self) -> None:
        """Place the engines that a move has found GPUs for."""
        for spec in self._by_need:
            place = self._places.get(spec.id)
            if place is None or self.has(spec) or place.host not in self._hosts:
                continue
            if spec.id in self._failed:
                continue
            need = self._needs[spec.id]
            rooms = self._hosts[place.host].find(place.uuids)
            fits = need.allows(place.host) and len(rooms) == need.gpus
            if fits and all(room.fits(need, spec.id) for room in rooms):
                self._settle(spec, place.host, place.uuids)

    # Everything else.

    def settle_new(self) -> None:
        """Place the rest: engines of a model apart, as little broken up as can be."""
        for spec in self._by_need:
            if not self.has(spec) and spec.id not in self._failed:
                self._settle_anywhere(spec)

    def _settle_anywhere(self, spec: EngineSpec) -> None:
        need, wish = self._needs[spec.id], self.wish(spec)
        present = self._hosts.get(wish.host) if wish else None
        fit = present and self._find_offer(spec, present, spec.id)
        if present and fit:
            self._settle(spec, present.name, fit.uuids)
            return
        if spec.gpus:
            fits = (
                (host, self._find_offer(spec, host)) for host in self._hosts.values()
            )
            offers = {host.name: fit for host, fit in fits if fit}
        else:
            offers = self._offers_for(need)
        if not offers:
            self._give_up(spec, wish)
            return
        peers = self._peers[spec.model]
        name = min(offers, key=lambda host: (peers[host], offers[host].cost, host))
        self._settle(spec, name, offers[name].uuids)

    def _offers_for(self, need: Need) -> dict[str, RoomOffer]:
        """What each host with room offers; looks anew at those that have changed."""
        offers = self._offers.setdefault(need, {})
        changed = self._changed.setdefault(need, set(self._hosts))
        for name in changed:
            fit = self._hosts[name].find_offer(need)
            if fit is None:
                offers.pop(name, None)
            else:
                offers[name] = fit
        changed.clear()
        return offers

    def _find_offer(
        self, spec: EngineSpec, host: HostRoom, engine: str = ""
    ) -> RoomOffer | None:
        """The GPUs that this host offers; those that a pin names, where it does."""
        need = self._needs[spec.id]
        if not spec.gpus:
            return host.find_offer(need, engine)
        rooms = host.at(spec.gpus)
        if isinstance(rooms, str) or not need.allows(host.name):
            return None
        if not all(room.fits(need, engine) for room in rooms):
            return None
        return RoomOffer(tuple(room.gpu.uuid for room in rooms), (host.engines,))

    def _give_up(self, spec: EngineSpec, wish: EngineSpec | None) -> None:
        need = self._needs[spec.id]
        if need not in self._nowhere:
            self._nowhere[need] = why_nowhere(need, list(self._hosts.values()))
        reason = self._nowhere[need]
        if wish is None:
            self.waiting[spec.id] = reason
        elif self._is_started(wish):
            # It serves by an earlier fleet file; better that than not at all.
            self._leave(wish, reason)
        elif wish.host in self._hosts:
            self._leave(replace(spec, host=wish.host), reason)
        else:
            self._leave(wish, f"{self._absence(wish.host)}; {reason}")
