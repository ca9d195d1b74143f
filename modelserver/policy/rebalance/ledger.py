"""What moves have cost: requests that waited with them and would not have without.

Where load changes sides sooner than moves pay for, GPUs that follow it make requests
wait longer. So each model has a second queue: as it would be had no other model given
to it or taken from it. Both get the same requests; what one of its engines answers in
a second is measured.
"""

import math
from dataclasses import dataclass, replace

#: Seconds in which a ledger forgets: what a move has cost counts a third after them,
#: and engines that have stayed for so long where they are belong there.
FORGET_SECONDS = 14_400.0
#: The share of what moves have spared that still counts once engines leave again.
KEPT_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Ledger:
    """The ledger of one model. Sums of waiting are request-seconds."""

    #: How many engines it has more than without moves from model to model.
    gained: int = 0
    #: How many requests it holds fewer than without them.
    spared: float = 0.0
    #: What waited more than without them since engines last left where they belong;
    #: below 0 where moves have paid.
    excess: float = 0.0
    #: The same of earlier times, as far as moves did not pay.
    lost: float = 0.0
    #: All that has waited.
    waited: float = 0.0
    #: When it last took or gave, None before it has.
    moved_at: float | None = None
    #: Whether that took its engines further from where they belong.
    outward: bool = False

    def cost(self, drain_seconds: float) -> float:
        """What moves have cost, and still will until its queue is gone."""
        return self.lost + self.excess + max(0.0, -self.spared) * drain_seconds


@dataclass(frozen=True, slots=True)
class Interval:
    """What happened to a model between two ticks."""

    #: When it ended.
    now: float
    seconds: float
    #: Requests that its engines answered.
    finished: float
    #: Requests that wait at its end.
    waiting: float
    #: Requests that one of its engines answers in a second, None while unknown.
    speed: float | None
    #: How many engines would serve had it given and taken none.
    unmoved: int


def entered(ledger: Ledger, passed: Interval) -> Ledger:
    """The ledger after an interval."""
    kept = math.exp(-passed.seconds / FORGET_SECONDS)
    waited = ledger.waited * kept + passed.waiting * passed.seconds
    lost = ledger.lost * kept
    moved_at = ledger.moved_at
    if moved_at is not None and passed.now - moved_at > FORGET_SECONDS:
        return Ledger(lost=lost + max(0.0, ledger.excess), waited=waited)
    if moved_at is None or passed.speed is None:
        return replace(ledger, lost=lost, waited=waited)
    answered = max(0, passed.unmoved) * passed.speed * passed.seconds
    if not passed.waiting:
        # Its engines have answered all there was; without moves no more had come.
        answered = min(answered, passed.finished + max(0.0, ledger.spared))
    spared = max(-passed.waiting, ledger.spared + passed.finished - answered)
    excess = ledger.excess - spared * passed.seconds
    return replace(ledger, spared=spared, excess=excess, lost=lost, waited=waited)


def moved(ledger: Ledger, engines: int, now: float) -> Ledger:
    """The ledger of a model that takes so many engines, or gives them where below 0.

    Engines that leave where they belong after others have come back begin a new sum,
    with a part of what the old one has spared.
    """
    gained = ledger.gained + engines
    outward = abs(gained) > abs(ledger.gained)
    if outward and not ledger.outward:
        lost = ledger.lost + max(0.0, ledger.excess)
        kept = KEPT_SHARE * min(0.0, ledger.excess)
        ledger = replace(ledger, lost=lost, excess=kept)
    return replace(ledger, gained=gained, moved_at=now, outward=outward)
