"""Whether an engine is slow for long prompts, or for long answers only. Pure.

An engine is compared with its peers size by size of prompt and answer, so that one that
only gets more long prompts is not slow for that.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from modelserver.policy.health.speed import SLOW, SLOWER_THAN_PEERS, beyond_wander
from modelserver.policy.health.tallies import (
    ANSWER_EDGES,
    PROMPT_EDGES,
    Cell,
    Tallies,
    edges_of,
)
from modelserver.policy.health.verdicts import SlowBand
from modelserver.values import EngineReport

#: Fewer than 5 requests of a kind say nothing about it.
BAND_FEWEST = 5
#: Requests of one size that peers need to be compared with.
SIZE_FEWEST = 3.0
#: An engine is slow for a kind beyond 4.5 standard errors: many kinds are looked at.
BAND_CERTAIN = 4.5
#: Engines are compared that have been counted for 100 seconds.
BAND_SECONDS = 100.0
#: What the other requests of an engine exceed its peers by, of what those of the kind
#: do, at most: else it is slow as a whole.
OTHERS_SHARE = 0.5

#: Late requests are of a kind when such are late 4 times as often as others, ...
MORE_OFTEN = 4.0
#: ... by 3 standard deviations more often than a pause makes them late, ...
LATE_CERTAIN = 3.0
#: ... which meets long ones so many times as often as others.
LONGER_AT_RISK = {"prompts": 1.5, "answers": 2.5}
#: Where hardly any other was late, ...
OTHERS_LATE = 0.1
#: ... it takes only that a pause would have met one with 90 %.
ALL_BY_CHANCE = 0.1

#: Half as many other requests show that it is well at those.
OTHERS_FEWEST = 0.5

#: The sizes that are long in one way: "prompts" or "answers", from so many tokens on.
Kind = tuple[str, int]


def is_slow_somewhere(own: Tallies) -> bool:
    """Whether requests of any size are slow enough to look closer."""
    return any(total >= math.log(SLOW) * weight for _, weight, total, *_ in own.cells)


@dataclass(frozen=True, slots=True)
class _Sums:
    """Requests of several sizes, against those of its peers of the same sizes."""

    requests: float = 0.0
    #: The sums of logarithms over all requests: the engine's, and what its peers would
    #: have had for the same sizes.
    own: float = 0.0
    theirs: float = 0.0
    #: The variance of the difference.
    variance: float = 0.0

    @property
    def excess(self) -> float:
        """How much slower than its peers it is, as a logarithm."""
        return (self.own - self.theirs) / max(1e-9, self.requests)

    @property
    def residual(self) -> float:
        """The mean logarithm of measured over expected seconds."""
        return self.own / max(1e-9, self.requests)

    @property
    def error(self) -> float:
        """The standard error of the excess."""
        return math.sqrt(self.variance) / max(1e-9, self.requests)

    @property
    def certainty(self) -> float:
        """The excess in standard errors."""
        return self.excess / max(1e-9, self.error)


def find_slow_band(
    engine: EngineReport,
    own: Tallies,
    peers: Collection[Tallies],
    sigma: float,
    wander: float,
    now: float,
) -> SlowBand | None:
    """The verdict that an engine is slow for a kind of requests: the surest of them.

    ``sigma`` is the standard deviation of requests of healthy engines, ``wander`` how
    far engines go up and down by themselves.
    """
    known = [each for each in peers if now - each.since >= BAND_SECONDS]
    if now - own.since < BAND_SECONDS:
        return None
    compared = _compared(own.cells, known, sigma)
    whole = _added(compared.values())
    found: dict[Kind, _Sums] = {}
    for kind in _kinds():
        sums = _added(sums for size, sums in compared.items() if is_of(kind, size))
        if _is_slow(sums, whole, wander):
            found[kind] = sums
    if not found:
        return None
    kind = max(found, key=lambda each: (found[each].certainty, each[1]))
    sums = found[kind]
    return SlowBand(
        engine=engine.id,
        incarnation=engine.incarnation,
        long=kind[0],
        tokens=kind[1],
        residual=sums.residual,
        peers_residual=sums.residual - sums.excess,
        error=sums.error,
        requests=round(sums.requests),
        peers=len(known),
    )


def is_of(kind: Kind, size: int) -> bool:
    """Whether requests of this size are of that kind.

    >>> is_of(("prompts", 2048), 16), is_of(("answers", 1024), 16)
    (True, False)
    """
    prompt, answer = edges_of(size)
    if kind[0] == "prompts":
        return prompt > PROMPT_EDGES.index(kind[1])
    return answer > ANSWER_EDGES.index(kind[1])


def without_kind(own: Tallies, band: SlowBand) -> Tallies:
    """The requests that are not of the kind for which an engine is slow."""
    kind = (band.long, band.tokens)
    cells = tuple(cell for cell in own.cells if not is_of(kind, cell[0]))
    late = sum(cell[4] for cell in own.cells)
    left = sum(cell[4] for cell in cells) / late if late else 0.0
    return replace(own, cells=cells, pauses=left * own.pauses, lost=left * own.lost)


def late_by_kind(own: Tallies) -> bool:
    """Whether mostly requests of one kind are late, more than chance makes it so.

    A stutter makes all kinds late. Requests that are slow for what they are delay some
    of their neighbours, too, where they are read.
    """
    return any(_is_late_kind(own, kind) for kind in _kinds())


def _is_late_kind(own: Tallies, kind: Kind) -> bool:
    of_kind = [cell for cell in own.cells if is_of(kind, cell[0])]
    weight, late = sum(cell[1] for cell in of_kind), sum(cell[4] for cell in of_kind)
    of_all = sum(cell[1] for cell in own.cells)
    late_of_all = sum(cell[4] for cell in own.cells)
    if (
        not late
        or late * (of_all - weight) < MORE_OFTEN * (late_of_all - late) * weight
    ):
        return False
    share = LONGER_AT_RISK[kind[0]] * weight / of_all
    if share >= 1:
        return False
    if late_of_all - late < OTHERS_LATE:
        return share**late_of_all <= ALL_BY_CHANCE
    spread = math.sqrt(late_of_all * share * (1 - share))
    return late - share * late_of_all >= LATE_CERTAIN * spread


def _kinds() -> Iterator[Kind]:
    yield from (("prompts", edge) for edge in PROMPT_EDGES)
    yield from (("answers", edge) for edge in ANSWER_EDGES)


def _is_slow(sums: _Sums, whole: _Sums, wander: float) -> bool:
    # Where the fit is wrong for all, engines may differ by as much for what they get.
    level = max(0.0, sums.residual - sums.excess)
    least = math.log(SLOWER_THAN_PEERS) + level
    certain = max(BAND_CERTAIN * sums.error, math.log(beyond_wander(wander)), least)
    if sums.requests < BAND_FEWEST or sums.residual < math.log(SLOW):
        return False
    others = whole.requests - sums.requests
    beyond = whole.own - whole.theirs - (sums.own - sums.theirs)
    is_other = others >= OTHERS_FEWEST * sums.requests
    is_well = beyond < OTHERS_SHARE * sums.excess * others
    return sums.excess >= certain and is_other and is_well


def _compared(
    cells: Collection[Cell], peers: Collection[Tallies], sigma: float
) -> dict[int, _Sums]:
    """An engine's requests against its peers', size by size where they have enough."""
    pooled: defaultdict[int, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for peer in peers:
        for size, weight, total, squares, _ in peer.cells:
            sums = pooled[size]
            sums[0] += weight
            sums[1] += total
            sums[2] += squares
    compared = {}
    for size, weight, total, squares, _ in cells:
        theirs = pooled[size]
        if theirs[0] >= SIZE_FEWEST:
            spread = _variance(weight, total, squares, sigma) * weight
            peers_variance = _variance(theirs[0], theirs[1], theirs[2], sigma)
            spread += peers_variance * weight * weight / theirs[0]
            level = theirs[1] / theirs[0]
            compared[size] = _Sums(weight, total, level * weight, spread)
    return compared


def _variance(weight: float, total: float, squares: float, sigma: float) -> float:
    """The variance of one request's logarithm, at least that of the fit."""
    return max(sigma * sigma, squares / weight - (total / weight) ** 2)


def _added(several: Collection[_Sums] | Iterator[_Sums]) -> _Sums:
    every = list(several)
    return _Sums(
        sum(each.requests for each in every),
        sum(each.own for each in every),
        sum(each.theirs for each in every),
        sum(each.variance for each in every),
    )
