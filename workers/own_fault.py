"""Tells a request that no engine can answer from engines that fail at requests.

A request that fails in the same way on two engines, or again on one that answered
others in between, is at fault itself, unless these engines fail at others as well:
then chance alone may explain it. How likely that is, is the product of the shares of
other requests that the engines failed at of late.
"""

import math
from dataclasses import dataclass, field

from modelserver.engine_client import EngineFault
from modelserver.messaging.answers import UnsoundVectorsError
from modelserver.values import Outcome
from workers.roster import EngineSlot, FailedRequest

#: A request is at fault once chance explains its failures no likelier than this.
LEAST_CHANCE = 1e-6
#: Ways to fail that mostly tell of the engine's state: it is about to end, it does not
#: know our key, something before it is broken.
STATES = frozenset(
    {"broken off", *(f"status {code}" for code in (401, 403, 408, 425, 502, 503, 504))}
)
#: How likely at least a sound request meets such a state.
STATE_CHANCE = 0.1


@dataclass(slots=True)
class FailedTries:
    """What one request has failed at so far. Times are of the monotonic clock."""

    #: How the engines that it failed at remember it.
    mark: FailedRequest = field(default_factory=FailedRequest)
    #: By engine and incarnation: when it failed there last.
    failed_at: dict[tuple[str, int], float] = field(default_factory=dict)
    #: By way: the engines on which failing so speaks against the request.
    against: dict[str, list[EngineSlot]] = field(default_factory=dict)
    #: By place: texts that got no sound vector, each time so far.
    bad_texts: dict[int, str] | None = None
    #: Whether the last failed try counts against its engine: the first one there does.
    counts: bool = True

    @property
    def is_own_fault(self) -> bool:
        """Whether the request itself is the cause."""
        return self.mark.is_own_fault

    @property
    def times(self) -> int:
        """How many failed tries speak against the request."""
        return max(map(len, self.against.values()), default=0)

    @property
    def outcome(self) -> Outcome:
        """What is recorded of the last failed try."""
        return Outcome.ENGINE_FAULT if self.counts else Outcome.REPEATED

    def note(self, slot: EngineSlot, fault: EngineFault, now: float) -> None:
        """Take note of a failed try."""
        place = (slot.engine.id, slot.engine.incarnation)
        last = self.failed_at.get(place)
        self.failed_at[place] = now
        if isinstance(fault, UnsoundVectorsError):
            self.mark.is_own_fault |= self._is_text_at_fault(fault)
        elif fault.way and (last is None or slot.finished_at > last):
            self.against.setdefault(fault.way, []).append(slot)
            self.mark.is_own_fault |= self._is_beyond_chance(fault.way)
        self.counts = last is None and not self.is_own_fault
        if self.counts:
            slot.recent.append(self.mark)

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

    def _is_beyond_chance(self, way: str) -> bool:
        slots = self.against[way]
        least = STATE_CHANCE if way in STATES else 0.0
        chance = math.prod(
            max(least, slot.share_of_failures(self.mark)) for slot in slots
        )
        return len(slots) > 1 and chance <= LEAST_CHANCE
