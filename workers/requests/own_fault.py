"""Tells a request that no engine can answer from engines that fail at requests.

A request that fails in the same way on two engines, or again on one that answered
others in between, is at fault itself, unless these engines fail at others as well:
then chance alone may explain it. How likely that is, is the product of the shares of
other requests that the engines failed at of late. What other workers have tried comes
with the message.
"""

import math
from dataclasses import dataclass, field

from modelserver.engine_protocol import EngineFault
from modelserver.messaging.answers import UnsoundVectorsError
from modelserver.values import Outcome
from workers.engines.engine_slot import EngineSlot
from workers.engines.failures import (
    Culprit,
    EngineThen,
    FailedRequest,
    FailedTry,
    FaultShares,
    Place,
)
from workers.requests.carried_tries import CarriedTries, CarriedTry

#: A request is at fault once chance explains its failures no likelier than this.
LEAST_CHANCE = 1e-6
#: Ways to fail that mostly tell of the engine's state: it is about to end, it does not
#: know our key, something before it is broken.
STATES = frozenset(
    {"broken off", *(f"status {code}" for code in (401, 403, 408, 425, 502, 503, 504))}
)
#: How likely at least a sound request fails again where only a probe was answered in
#: between: that is tiny, and an engine may fail at larger ones only.
PROBED_CHANCE = 0.01
#: The way of a try that gave a text no sound vector.
BAD_VECTORS = "bad vectors"
#: Most requests of a model that are looked at for what becomes of their failures.
MOST_PENDING = 64
#: The longest that this is done, in seconds.
PENDING_SECONDS = 300.0
#: How likely at least a sound request meets such a state.
STATE_CHANCE = 0.1


class ModelFailures:
    """What a worker knows of one model's failed requests."""

    def __init__(self) -> None:
        self.shares = FaultShares()
        #: Requests that failed again, and since when they are here.
        self._pending: dict[FailedTries, float] = {}

    def follow(self, tries: "FailedTries", now: float) -> None:
        """Count this request as at fault once its engines have answered later ones."""
        for each, since in list(self._pending.items()):
            if each.is_repeated:
                each.is_counted = True
                self.shares.add(own=1.0)
            if each.is_counted or now - since > PENDING_SECONDS:
                del self._pending[each]
        if not tries.is_counted and len(self._pending) < MOST_PENDING:
            self._pending.setdefault(tries, now)

    def answered(self, tries: "FailedTries") -> None:
        """A request that engines had failed at has been answered."""
        self._pending.pop(tries, None)
        tries.mark.culprit = Culprit.ENGINES
        for slot in {each.slot.record.place: each.slot for each in tries.here}.values():
            slot.record.note_own_fault()
        self.shares.add(engines=1.0, own=-1.0 if tries.is_counted else 0.0)


@dataclass(frozen=True, slots=True)
class TryHere:
    """One failed try on an engine of this host."""

    slot: EngineSlot
    tried: FailedTry
    #: When it failed, in seconds of the store's clock.
    at: float
    #: In what way it failed, "" where the request cannot be the cause.
    way: str
    #: Whether failing so speaks against the request.
    speaks: bool = False
    #: Whether only a probe was answered since it failed there before.
    is_probed: bool = False


@dataclass(slots=True, eq=False)
class FailedTries:
    """What one request has failed at so far, here and on other hosts."""

    #: What is known of its model.
    model: ModelFailures = field(default_factory=ModelFailures)
    #: How the engines that it failed at remember it.
    mark: FailedRequest = field(default_factory=FailedRequest)
    #: What came with the message.
    carried: CarriedTries = field(default_factory=CarriedTries)
    #: Its tries here.
    here: list[TryHere] = field(default_factory=list)
    #: Engines whose failing at it was counted against them, each with when that was, in
    #: seconds of the store's clock; 0 where unknown.
    blamed: dict[Place, float] = field(default_factory=dict)
    #: By place: texts that got no sound vector, each time so far.
    bad_texts: dict[int, str] | None = None
    #: Whether the last failed try counts against its engine: the first one there does.
    counts: bool = True
    #: Whether it is counted among the requests at fault.
    is_counted: bool = False

    def __post_init__(self) -> None:
        for each in self.carried.tries:
            if each.way:
                self.blamed.setdefault(each.place, each.at)
        if self.carried.bad_texts is not None:
            self.bad_texts = dict.fromkeys(self.carried.bad_texts, "")

    @property
    def is_own_fault(self) -> bool:
        """Whether the request itself is the cause."""
        return self.mark.is_own_fault

    @property
    def times(self) -> int:
        """How many failed tries speak against the request."""
        return max(
            (len(self._against(way)) + len(self._carried(way)) for way in self._ways()),
            default=0,
        )

    @property
    def outcome(self) -> Outcome:
        """What is recorded of the last failed try."""
        return Outcome.ENGINE_FAULT if self.counts else Outcome.REPEATED

    @property
    def places(self) -> set[Place]:
        """The engines that it was tried on and failed."""
        return {*(each.place for each in self.carried.tries), *self.mark.tries}

    @property
    def is_repeated(self) -> bool:
        """Whether it failed again in the same way, on engines that work.

        Of what was tried elsewhere that is not known here.
        """
        for way in self._ways():
            tries = self._against(way)
            here = sum(each.tried.engine is EngineThen.WELL for each in tries)
            if here and here + len(self._carried(way)) > 1:
                return True
        return False

    def note(
        self,
        slot: EngineSlot,
        fault: EngineFault,
        began: float,
        now: float,
        at: float = 0.0,
    ) -> None:
        """Take note of a failed try. Times are of the monotonic clock.

        ``at`` is now by the store's clock.
        """
        place = slot.record.place
        is_first, last = place not in self.places, self.mark.tries.get(place)
        tried = slot.record.note_failure(self.mark, began, now, bool(self.places))
        is_others = is_first or (last is not None and slot.finished_at > last.at)
        is_probed = last is not None and not is_others and slot.probed_at > last.at
        is_probed = is_probed and slot.record.is_told_by_probes
        if isinstance(fault, UnsoundVectorsError):
            self.here.append(TryHere(slot, tried, at, BAD_VECTORS))
            is_own_fault = self._is_text_at_fault(fault)
        else:
            speaks = bool(fault.way) and (is_others or is_probed)
            self.here.append(TryHere(slot, tried, at, fault.way, speaks, is_probed))
            # Also where this try says nothing: more is known of those before by now.
            is_own_fault = bool(fault.way) and self._is_beyond_chance(fault.way)
        self.counts = is_first and not is_own_fault
        if self.counts:
            slot.record.recent.append(self.mark)
        if self.counts and self.here[-1].way:
            self.blamed.setdefault(place, at)
        if is_own_fault:
            self.mark.culprit = Culprit.REQUEST
        if self.times > 1:
            self.model.follow(self, now)

    def to_carry(self, attempts: int, passes: int) -> CarriedTries:
        """All of it, for the message."""
        tries, places = list(self.carried.tries), {t.place for t in self.carried.tries}
        for each in self.here:
            place = each.slot.record.place
            # One word for an engine is enough, unless it speaks against the request.
            if each.speaks or place not in places:
                tries.append(
                    CarriedTry(*place, each.way, self._chance_of(each), each.at)
                )
                places.add(place)
        texts = None if self.bad_texts is None else tuple(self.bad_texts)
        return CarriedTries(tuple(tries), texts, attempts, passes)

    def _is_text_at_fault(self, fault: UnsoundVectorsError) -> bool:
        """Whether a text got no sound vector for the second time."""
        before = self.bad_texts
        if before is None:
            self.bad_texts = fault.problems
            return False
        self.bad_texts = {
            place: why for place, why in fault.problems.items() if place in before
        }
        return bool(self.bad_texts)

    def _ways(self) -> set[str]:
        carried = {each.way for each in self.carried.tries}
        return carried | {each.way for each in self.here}

    def _against(self, way: str) -> list[TryHere]:
        return [each for each in self.here if each.speaks and each.way == way]

    def _carried(self, way: str) -> list[float]:
        tries = (each for each in self.carried.tries if each.way == way)
        return [each.chance for each in tries if each.chance < 1.0]

    def _is_beyond_chance(self, way: str) -> bool:
        chances = [self._chance_of(each) for each in self._against(way)]
        chances += self._carried(way)
        return len(chances) > 1 and math.prod(chances) <= LEAST_CHANCE

    def _chance_of(self, here: TryHere) -> float:
        """How likely it failed so by chance; 1 where it says nothing."""
        if not here.speaks or here.tried.engine is EngineThen.FAILING:
            return 1.0
        least = STATE_CHANCE if here.way in STATES else 0.0
        least = max(least, PROBED_CHANCE if here.is_probed else 0.0)
        others = self.model.shares.without(1.0 if self.is_counted else 0.0)
        running = here.slot.started.values()
        share = here.slot.record.share_of_failures(self.mark, others, running)
        return max(least, share)
