"""The engines of this host, what is in flight on them, and who gets the next request.

The launcher's report says what an engine is; what is in flight is this worker's own
knowledge and travels with its lease, so that it ends when the worker does. Of an
engine's limit this worker has its share, where others of its host have theirs.
"""

import asyncio
import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Mapping

from modelserver.values import EngineReport, EngineState
from workers.engines.engine_slot import (
    FAULTS_IN_A_ROW,
    LEAST_RUN_CHANCE,
    EngineSlot,
)
from workers.engines.failures import (
    FailedRequest,
    FaultShares,
    Place,
)
from workers.engines.shares import SUSPECTS_OF
from workers.engines.urgent import UrgentRequests

#: Requests that wait for a place, the first one first.
Line = deque[asyncio.Future[None]]


class Roster:
    """The engines of one host that serve or drain. Lives on the loop's thread."""

    def __init__(self, host: str) -> None:
        self.host = host
        #: By engine id.
        self.slots: dict[str, EngineSlot] = {}
        #: By engine id: its last incarnation that died while it served.
        self.died: dict[str, int] = {}
        #: By model: engines of other hosts that are given work.
        self.elsewhere: defaultdict[str, set[Place]] = defaultdict(set)
        #: By engine: how many requests this worker may have; None where it is alone.
        self.shares: Mapping[str, int] | None = None
        #: Until when the shares are this worker's, by the monotonic clock.
        self.shares_until = math.inf
        #: Called when engines have come, or take more or fewer requests than before.
        self.on_limits: Callable[[], None] = lambda: None
        self.closed = False
        #: Requests that filler leaves places for.
        self.urgent = UrgentRequests()
        self._limits: dict[str, int] = {}
        self._lines: defaultdict[str, Line] = defaultdict(deque)
        #: The same of filler, which comes after.
        self._fillers: defaultdict[str, Line] = defaultdict(deque)

    def update(
        self, reports: Mapping[str, EngineReport], dead: Collection[str] = ()
    ) -> None:
        """Take over what the launchers report. A new incarnation starts clean.

        ``dead`` are hosts without a worker, whose engines nobody asks.
        """
        now = time.monotonic()
        mine = {
            engine.id: engine
            for engine in reports.values()
            if engine.host == self.host
            and (engine.serves or engine.state is EngineState.DRAINING)
        }
        self.died = {
            engine.id: engine.died
            for engine in reports.values()
            if engine.host == self.host and engine.died
        }
        self.elsewhere.clear()
        for engine in reports.values():
            is_there = engine.host != self.host and engine.host not in dead
            if is_there and engine.is_given_work:
                place = (engine.id, engine.incarnation)
                self.elsewhere[engine.model].add(place)
        for name in set(self.slots) - set(mine):
            del self.slots[name]
        for name, engine in mine.items():
            slot = self.slots.get(name)
            if slot is None or slot.engine.incarnation != engine.incarnation:
                self.slots[name] = slot = EngineSlot(engine, seen_at=now)
            slot.follow(engine, self._share_of(name))
            if engine.is_called_off:
                slot.call_off()
        limits, self._limits = self._limits, {e.id: e.limit for e in mine.values()}
        if limits != self._limits:
            self.on_limits()
        # Limits may have risen, engines may have come or gone.
        self._all_look_again()

    def _share_of(self, engine: str) -> int | None:
        return None if self.shares is None else self.shares.get(engine, 0)

    def take_shares(self, shares: Mapping[str, int]) -> None:
        """Go by what this worker may have of each engine from now on."""
        if shares == self.shares:
            return
        self.shares = shares
        for name, slot in self.slots.items():
            slot.follow(slot.engine, self._share_of(name))
        self._all_look_again()

    def trust_shares(self, until: float) -> None:
        """Let requests begin until then, by the monotonic clock."""
        ended = time.monotonic() >= self.shares_until
        self.shares_until = until
        if ended:
            self._all_look_again()

    def leads(self, model: str) -> bool:
        """Whether this worker runs the model's suspects, and no other of its host."""
        return self.shares is None or self.shares.get(SUSPECTS_OF + model, 0) > 0

    def models(self) -> frozenset[str]:
        """Models that have an engine here which may get requests."""
        now = time.monotonic()
        return frozenset(
            slot.engine.model for slot in self.slots.values() if slot.usable(now)
        )

    def capacity(self, model: str) -> int:
        """Requests of this worker that usable engines of a model take at once."""
        now = time.monotonic()
        return sum(
            slot.share
            for slot in self.slots.values()
            if slot.engine.model == model and slot.usable(now)
        )

    def is_served(self, model: str) -> bool:
        """Whether this worker or another of its host has an engine of a model."""
        now = time.monotonic()
        return any(
            slot.engine.model == model
            and slot.engine.is_given_work
            and now >= slot.suspect_until
            for slot in self.slots.values()
        )

    def places_of_others(self, model: str) -> set[Place]:
        """Engines of a model that get requests of other workers, and none of this."""
        here = {
            slot.record.place
            for slot in self.slots.values()
            if slot.engine.model == model
            and slot.engine.is_given_work
            and not slot.is_given_work
        }
        return self.elsewhere[model] | here

    def choose(self, model: str, avoid: Collection[str] = ()) -> EngineSlot | None:
        """The least loaded usable engine, one of ``avoid`` only if there is no other.

        Load is in-flight over limit, so that a bigger engine gets more.
        """
        now = time.monotonic()
        best, best_rank = None, (True, 0.0, 0.0)
        for slot in self.slots.values():
            engine = slot.engine
            if engine.model != model or not slot.usable(now):
                continue
            # Among equals the one that waited longest, so that all leave samples.
            load = slot.inflight / max(1, slot.share)
            rank = (engine.id in avoid, load, slot.began_at)
            if best is None or rank < best_rank:
                best, best_rank = slot, rank
        return best

    def has_untried(self, model: str, tried: Collection[Place]) -> bool:
        """Whether an engine here may get a request that failed on those."""
        now = time.monotonic()
        return any(
            slot.engine.model == model
            and slot.record.place not in tried
            and slot.usable(now)
            for slot in self.slots.values()
        )

    def note_fault(
        self, slot: EngineSlot, began: float, mark: FailedRequest, shares: FaultShares
    ) -> None:
        """An engine failed at a request; after some in a row it is suspected.

        A request that ``began`` before the last fault failed together with that one.
        """
        if began <= slot.fault_at:
            return
        slot.faults.append(mark)
        now = slot.fault_at = time.monotonic()
        if len(slot.faults) < FAULTS_IN_A_ROW or not slot.usable(now):
            return
        own = slot.record.share_of_own_faults(slot.faults, shares.of_engines())
        if own ** len(slot.faults) > LEAST_RUN_CHANCE:
            return
        others = (
            each
            for each in self.slots.values()
            if each is not slot and each.engine.model == slot.engine.model
        )
        if any(each.usable(now) for each in others):
            slot.suspect(now, began)
            slot.is_suspected_for_faults = True

    def kept(self, model: str) -> int:
        """Places that filler leaves free for urgent requests."""
        now = time.monotonic()
        return self.urgent.free_places(model, self.capacity(model), now)

    def has_place(self, slot: EngineSlot, is_filler: bool) -> bool:
        """Whether the engine may get one more request."""
        if slot.inflight >= slot.share or time.monotonic() >= self.shares_until:
            return False
        model = slot.engine.model
        kept = self.kept(model) if is_filler else 0
        return not kept or self.capacity(model) - self._in_flight(model) > kept

    def _in_flight(self, model: str) -> int:
        slots = self.slots.values()
        return sum(each.inflight for each in slots if each.engine.model == model)

    async def admit(
        self, model: str, avoid: Collection[str] = (), is_filler: bool = False
    ) -> EngineSlot | None:
        """A usable engine with a place, waited for in line; None if none is usable.

        What waits here was pulled early, so that no engine waits for requests. Urgent
        ones go before filler.
        """
        while True:
            slot = self.choose(model, avoid)
            if slot is None:
                return None
            if self.has_place(slot, is_filler):
                return slot
            if self.closed:
                return None
            turn = asyncio.get_running_loop().create_future()
            (self._fillers if is_filler else self._lines)[model].append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self.release(model)
                raise

    def waiting(self, model: str) -> int:
        """Requests that wait in line."""
        return len(self._lines.get(model, ())) + len(self._fillers.get(model, ()))

    def close(self) -> None:
        """Let nobody wait in line any more: the worker ends."""
        self.closed = True
        self.on_limits()
        self._all_look_again()

    def _all_look_again(self) -> None:
        for model in {*self._lines, *self._fillers}:
            while self.release(model):
                pass

    def release(self, model: str) -> bool:
        """A place came free: the first in line looks again. False if nobody waits."""
        for line in (self._lines[model], self._fillers[model]):
            while line:
                turn = line.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return True
        return False

    def next_change(self) -> float | None:
        """Seconds until a suspected engine may be tried again."""
        now = time.monotonic()
        waits = [
            slot.suspect_until - now
            for slot in self.slots.values()
            if slot.suspect_until > now
        ]
        return min(waits, default=None)

    def loads(self) -> dict[str, list[float]]:
        """By engine: in-flight, age of the oldest, seconds since one finished well."""
        now = time.monotonic()
        return {
            name: [
                slot.inflight,
                round(now - next(iter(slot.started.values()), now), 3),
                round(now - (slot.finished_at or slot.seen_at), 3),
            ]
            for name, slot in self.slots.items()
        }
