"""Whether an engine stands still again and again, and is well in between. Pure.

Its median and its canaries show nothing of that: its late requests do.
"""

import math
from collections.abc import Collection, Sequence

from modelserver.policy.health.failures import wilson_bound
from modelserver.policy.health.tallies import HALF_LIFE_SECONDS, Cell, Tallies
from modelserver.policy.health.verdicts import Stutter, StutterTogether
from modelserver.values import EngineReport

#: Fewer than 10 requests say nothing about a stutter.
STUTTER_FEWEST = 10
#: The normal quantile of Wilson's bound for an engine, ...
STUTTER_Z = 2.33
#: ... and for its peers.
PEERS_Z = 1.0
#: The same for an engine that stutters already.
STILL_Z = 1.0
#: The share of requests that may be late on any engine, ...
LATE_SHARE = 0.03
#: ... and on one without peers.
LATE_ALONE = 0.1
#: The share of its time that any busy engine may lose in pauses, ...
LOST_SHARE = 0.06
#: ... and one without peers.
LOST_ALONE = 0.12
#: Both shares may also be 3 times those of the better half of its peers.
LATE_PEERS = 3.0
#: An engine is busy from 100 requests within some five minutes on.
BUSY = 100
#: A pause of a busy engine makes at least 2 requests late: one may be slow by itself.
SHARED_BY = 2.0
#: A stutter takes at least three pauses within three minutes; older ones have faded.
PAUSES = 2.2
#: The same for an engine that stutters already, or without peers.
STILL_PAUSES = 0.8
PAUSES_ALONE = 3.0
#: Most engines of a model stutter when surely so many of their requests are late.
LATE_TOGETHER = 0.08
#: This is over when no more than so many are.
LATE_TOGETHER_OVER = 0.04


def find_stutter(
    engine: EngineReport,
    own: Tallies,
    peers: Collection[Tallies],
    now: float,
    known: bool = False,
) -> Stutter | None:
    """The verdict that an engine stutters; ``known``: it is known for that already."""
    late, requests = _late_of(own.cells)
    if requests < STUTTER_FEWEST or own.pauses < (STILL_PAUSES if known else PAUSES):
        return None
    compared = better_half(peers)
    if not compared and own.pauses < PAUSES_ALONE:
        return None
    theirs = _late_of([cell for each in compared for cell in each.cells])
    allowed, lost_allowed = LATE_ALONE, LOST_ALONE
    if compared:
        allowed = max(LATE_SHARE, LATE_PEERS * wilson_bound(*theirs, -PEERS_Z))
        theirs_lost = sum(_lost_share(each, now) for each in compared) / len(compared)
        lost_allowed = max(LOST_SHARE, LATE_PEERS * theirs_lost)
    least = wilson_bound(late, requests, STILL_Z if known else STUTTER_Z)
    lost = _lost_share(own, now)
    # Of an engine that stands still few requests are late: it gets no more than its
    # limit. Of a busy one the silences are sure, if several requests met each.
    is_sure = requests >= BUSY and late >= SHARED_BY * own.pauses
    if least <= allowed and not (is_sure and lost > lost_allowed):
        return None
    return Stutter(
        engine=engine.id,
        incarnation=engine.incarnation,
        late=late / requests,
        at_least=least,
        allowed=allowed,
        requests=round(requests),
        pauses=own.pauses,
        pause_seconds=own.lost / own.pauses,
        lost=lost,
        peers=len(peers),
        peers_late=theirs[0] / theirs[1] if compared else 0.0,
    )


def find_stutter_together(
    model: str, engines: Collection[Tallies], known: bool
) -> StutterTogether | None:
    """The verdict that most engines of a model stutter; None for a single engine.

    ``known`` is whether they do already. It takes both of two engines, and three of
    four: the better half has to stutter, but for the best quarter of all.
    """
    best = better_half(engines)
    # A quarter may be well, and hides nothing of the others.
    best = best[len(engines) // 4 :]
    if len(engines) < 2 or not best:
        return None
    late, requests = _late_of([cell for each in best for cell in each.cells])
    least, pauses = LATE_TOGETHER, PAUSES * len(best)
    if known:
        least, pauses = LATE_TOGETHER_OVER, STILL_PAUSES * len(best)
    if sum(each.pauses for each in best) < pauses:
        return None
    if wilson_bound(late, requests) <= least:
        return None
    return StutterTogether(model, late / requests, len(engines))


def better_half(engines: Collection[Tallies]) -> Sequence[Tallies]:
    """The half with the least late requests, of those that had enough to tell."""
    shares = []
    for each in engines:
        late, requests = _late_of(each.cells)
        if requests >= STUTTER_FEWEST:
            shares.append((late / requests, each))
    shares.sort(key=lambda pair: pair[0])
    return [each for _, each in shares[: math.ceil(len(shares) / 2)]]


def _late_of(cells: Collection[Cell]) -> tuple[float, float]:
    """How many requests were late, and how many there are."""
    return sum(cell[4] for cell in cells), sum(cell[1] for cell in cells)


def _lost_share(own: Tallies, now: float) -> float:
    """The share of its time that an engine has lost in pauses, at least."""
    seen = 1 - 0.5 ** ((now - own.since) / HALF_LIFE_SECONDS)
    lost: float = own.lost * math.log(2) / HALF_LIFE_SECONDS / max(seen, 1e-9)
    return min(1.0, lost)
