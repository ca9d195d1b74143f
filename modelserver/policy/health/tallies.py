"""What an engine's requests of the last minutes were like, by their size. Pure.

Counts fade alike on all engines, so that those of two engines are of the same time.
"""

import math
from bisect import bisect
from collections.abc import Iterable
from dataclasses import dataclass

#: A request counts half after 200 seconds.
HALF_LIFE_SECONDS = 200.0
#: Sizes of prompts begin at these tokens. Each is at most twice the one before where
#: prefill may cost more than the fit, which is linear, says.
PROMPT_EDGES = (512, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
#: Sizes of answers begin at these tokens.
ANSWER_EDGES = (64, 256, 512, 1024, 4096, 16384)
#: A request counts as at most 3 times slower, or faster, than expected.
MOST_LOG = math.log(3)
#: A size that weighs less is forgotten.
LEAST_WEIGHT = 0.2

#: Requests of one size: its number, how many they are, the sum of their logarithms of
#: measured over expected seconds, the sum of the squares of these, and how many of the
#: requests were late. All but the number fade.
Cell = tuple[int, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Tallies:
    """An engine's requests of late. Times are seconds of the store's clock."""

    #: Since when they are counted.
    since: float = 0.0
    cells: tuple[Cell, ...] = ()
    #: Late requests that did not overlap, so each met a pause of its own; they fade.
    pauses: float = 0.0
    #: The seconds by which these were late; they fade.
    lost: float = 0.0
    #: When the last of these ended.
    late_until: float = 0.0
    #: When the last canary that is counted was sent.
    canary_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Counted:
    """One answered request, or one canary, as it is counted."""

    size: int
    log: float
    #: The seconds by which it was late, 0 if it was not.
    late_by: float
    began: float
    ended: float
    is_canary: bool = False


def size_of(prompt_tokens: float, completion_tokens: float) -> int:
    """The number of the size that a request has.

    >>> size_of(20, 9), size_of(3000, 300)
    (0, 16)
    """
    prompt = bisect(PROMPT_EDGES, prompt_tokens)
    return prompt * (len(ANSWER_EDGES) + 1) + bisect(ANSWER_EDGES, completion_tokens)


def edges_of(size: int) -> tuple[int, int]:
    """How many edges the prompts, and the answers, of this size have passed.

    >>> edges_of(16)
    (2, 2)
    """
    return divmod(size, len(ANSWER_EDGES) + 1)


def added(old: Tallies, new: Iterable[Counted], fades: float, now: float) -> Tallies:
    """The counts after some time in which these requests have come."""
    cells = {
        size: [weight * fades, total * fades, squares * fades, late * fades]
        for size, weight, total, squares, late in old.cells
    }
    pauses, lost, until = old.pauses * fades, old.lost * fades, old.late_until
    canary_at = old.canary_at
    for each in sorted(new, key=lambda each: each.ended):
        log = max(-MOST_LOG, min(MOST_LOG, each.log))
        cell = cells.setdefault(each.size, [0.0] * 4)
        cell[0] += 1
        cell[1] += log
        cell[2] += log * log
        if each.is_canary:
            canary_at = max(canary_at, each.began)
        if each.late_by:
            cell[3] += 1
            if each.began >= until:
                until = each.ended
                pauses, lost = pauses + 1, lost + each.late_by
    kept = tuple(
        (size, round(w, 3), round(t, 3), round(s, 3), round(late, 3))
        for size, (w, t, s, late) in sorted(cells.items())
        if w >= LEAST_WEIGHT
    )
    return Tallies(
        *(old.since or now, kept, round(pauses, 3), round(lost, 2), until, canary_at)
    )
