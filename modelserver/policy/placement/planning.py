"""From the fleet and its hosts' GPUs to wishes, and to reasons where there is no room.

Where models have ranks, minimums come first, by rank; then big needs; then the first
engines of all models before their second ones. An engine that has been started stays;
one that has not is placed anew when its GPUs are taken. The same snapshot gives the
same plan.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from modelserver.policy.actions import Drop, Want
from modelserver.policy.placement.needs import Demand, Need, in_turn, wanted_engines
from modelserver.policy.placement.nodes import Places, find_best_places
from modelserver.policy.placement.offers import Offers
from modelserver.policy.placement.rooms import HOLDING, HostRoom, RoomOffer, why_not_on
from modelserver.policy.snapshot import Snapshot
from modelserver.values import EngineSpec, EngineState, NodePlace

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


def _with_places(spec: EngineSpec, places: Places) -> EngineSpec:
    host, uuids = places[0].host, places[0].uuids
    return replace(spec, host=host, uuids=uuids, followers=places[1:])


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
        self._offers = Offers(self._hosts, snapshot.drained_hosts)
        minimums = demand.minimums if demand else {}
        self._by_need = in_turn(self.wanted, models, self._needs, minimums)

    def has(self, spec: EngineSpec) -> bool:
        """Whether it has been dealt with, so that later rules leave it alone."""
        return spec.id in self.placed

    def wish(self, spec: EngineSpec) -> EngineSpec | None:
        """What control has wished of it before."""
        wish = self._snapshot.wishes.get(spec.id)
        return wish.spec if wish else None

    def _settle(
        self, spec: EngineSpec, *places: NodePlace, started: bool = False
    ) -> None:
        self.placed[spec.id] = _with_places(spec, places)
        self._peers[spec.model][places[0].host] += 1
        for place in places:
            if room := self._hosts.get(place.host):
                room.claim(spec.id, self._needs[spec.id], place.uuids, started)
                self._offers.note_change(place.host)

    def _leave(self, spec: EngineSpec, reason: str) -> None:
        """Place it without a claim on anything: it waits where it is."""
        self.placed[spec.id] = spec
        self.waiting[spec.id] = reason

    def _find_kept(self, spec: EngineSpec) -> EngineSpec | None:
        """Its present wish, unless the fleet file says something else by now."""
        wish = self.wish(spec)
        if wish is None or spec.host not in ("", wish.host):
            return None
        need = self._needs[spec.id]
        count = len(wish.uuids) in (0, need.gpus) and len(wish.places) == need.nodes
        return wish if count and _with_places(spec, wish.places) == wish else None

    def _is_free(self, spec: EngineSpec, place: NodePlace) -> bool:
        """Whether a host still has these GPUs for the engine."""
        host, need = self._hosts.get(place.host), self._needs[spec.id]
        if host is None or not need.allows(place.host):
            return False
        rooms = host.find(place.uuids)
        fits = all(room.fits(need, spec.id) for room in rooms)
        return len(rooms) == need.gpus and fits

    # What has been started stays.

    def settle_away(self) -> None:
        """Keep the engines of hosts that have not been silent for long."""
        for spec in self.wanted:
            kept, why = self._find_kept(spec), self._snapshot.away.get(spec.id)
            if kept is not None and why and kept.host not in self._hosts:
                # Its nodes on other hosts keep their GPUs.
                self._settle(kept, *kept.places)
                self.waiting[spec.id] = why

    def settle_returned(self) -> None:
        """Keep the engines that serve on a host that was given up and is back."""
        for spec in self.wanted:
            if spec.id not in self._snapshot.returned or not self._find_kept(spec):
                continue
            report = self._snapshot.engines[spec.id]
            host = self._hosts.get(report.host)
            if host is None or spec.host not in ("", host.name) or self.has(spec):
                continue
            rooms, need = host.at(report.gpus), self._needs[spec.id]
            # Of one on several hosts the others may have ended meanwhile.
            if isinstance(rooms, list) and len(rooms) == need.gpus and need.nodes == 1:
                uuids = tuple(room.gpu.uuid for room in rooms)
                self._settle(spec, NodePlace(host.name, uuids))

    def settle_started(self) -> None:
        """Keep the engines whose start has happened where they are."""
        for spec in self.wanted:
            wish = self._find_kept(spec)
            if wish and self._is_started(wish) and not self.has(spec):
                holds = self._snapshot.engines[spec.id].state in HOLDING
                self._settle(spec, *wish.places, started=holds)
                self._claim_by_index(wish)

    def _is_started(self, wish: EngineSpec) -> bool:
        report = self._snapshot.engines.get(wish.id)
        return (
            report is not None
            and report.host == wish.host
            and wish.host in self._hosts
            and report.state in SETTLED
            and not any(
                each.host in self._snapshot.drained_hosts for each in wish.followers
            )
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
            others, need = self._hosts.values(), self._needs[spec.id]
            size = max((room.gpu.total for room in rooms), default=0)
            larger = replace(need, least=max(need.least, size + 1))
            for room in rooms:
                room.claims[GIVEN_UP] = Need(1)
            found = find_best_places(larger, others, spec.host)
            found = found or find_best_places(need, others, spec.host)
            for room in rooms:
                room.claims.pop(GIVEN_UP)
            if found:
                self._settle(spec, *found)
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
            self._settle(spec, NodePlace(spec.host, uuids))

    def _settle_on_host(self, spec: EngineSpec) -> None:
        host = self._hosts.get(spec.host)
        if host is None:
            self._await_host(spec)
        elif not self._settle_as_kept(spec):
            need = self._needs[spec.id]
            places = self._find_places(spec, spec.host)
            if places:
                self._settle(spec, *places)
            elif need.nodes > 1:
                kept = self._find_kept(spec) or spec
                self._leave(kept, self._offers.why_nowhere(need))
            else:
                why = why_not_on(need, host, spec.id)
                self._leave(spec, f"needs {need}; {why}")

    def _find_places(self, spec: EngineSpec, leader: str = "") -> Places | None:
        hosts = self._hosts.values()
        return find_best_places(self._needs[spec.id], hosts, leader, spec.id)

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
        wish = self._find_kept(spec)
        if wish is None or not all(self._is_free(spec, each) for each in wish.places):
            return False
        self._settle(spec, *wish.places)
        return True

    # What has been ordered to a place goes there if it can.

    def settle_ordered(self) -> None:
        """Place the engines that a move has found GPUs for."""
        for spec in self._by_need:
            place = self._places.get(spec.id)
            if place is None or self.has(spec) or spec.id in self._failed:
                continue
            whole = len(place.places) == self._needs[spec.id].nodes
            if whole and all(self._is_free(spec, each) for each in place.places):
                self._settle(spec, *place.places)

    # Everything else.

    def settle_new(self) -> None:
        """Place the rest: engines of a model apart, as little broken up as can be."""
        for spec in self._by_need:
            if not self.has(spec) and spec.id not in self._failed:
                self._settle_anywhere(spec)

    def _settle_anywhere(self, spec: EngineSpec) -> None:
        need, wish = self._needs[spec.id], self.wish(spec)
        if need.nodes > 1:
            leader = wish.host if wish else ""
            places = self._find_places(spec, leader) or self._find_places(spec)
            if places:
                self._settle(spec, *places)
            else:
                self._give_up(spec, wish)
            return
        present = self._hosts.get(wish.host) if wish else None
        fit = present and self._find_offer(spec, present, spec.id)
        if present and fit:
            self._settle(spec, NodePlace(present.name, fit.uuids))
            return
        if spec.gpus:
            fits = (
                (host, self._find_offer(spec, host)) for host in self._hosts.values()
            )
            offers = {host.name: fit for host, fit in fits if fit}
        else:
            offers = self._offers.find(need)
        if not offers:
            self._give_up(spec, wish)
            return
        peers = self._peers[spec.model]
        name = min(offers, key=lambda host: (peers[host], offers[host].cost, host))
        self._settle(spec, NodePlace(name, offers[name].uuids))

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
        reason = self._offers.why_nowhere(self._needs[spec.id])
        away = (
            [p.host for p in wish.places if p.host not in self._hosts] if wish else []
        )
        if wish is None:
            self.waiting[spec.id] = reason
        elif self._is_started(wish):
            # It serves by an earlier fleet file; better that than not at all.
            self._leave(wish, reason)
        elif not away:
            self._leave(replace(spec, host=wish.host), reason)
        else:
            self._leave(wish, f"{self._absence(away[0])}; {reason}")
