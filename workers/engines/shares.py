"""What each worker of a host is to have of the engines' limits. Pure.

All workers deal alike. While they do not agree yet on who is there, the store sees to
it that none takes more than the others leave.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

#: How the suspects of a crash of a model are called, among the engines to share: one
#: worker of a host runs them.
SUSPECTS_OF = "suspects:"
#: A worker that lends keeps a part of its share beyond what it uses: one of so many.
PARTS_KEPT = 8


@dataclass(slots=True)
class Part:
    """What one worker is dealt."""

    #: By engine: how many requests.
    shares: dict[str, int] = field(default_factory=dict)
    #: The models whose suspects of a crash this worker runs, and no other.
    leads: set[str] = field(default_factory=set)


def deal(
    limits: Mapping[str, int], models: Mapping[str, str], number: int
) -> list[Part]:
    """The part of each of so many workers, by rank; ``models`` are by engine.

    What does not divide goes round from engine to engine, so that each worker gets
    some engine where there are places enough:

    >>> dealt = deal({"a": 5, "b": 1, "c": 1}, {"a": "a", "b": "b", "c": "b"}, 2)
    >>> [part.shares for part in dealt]
    [{'a': 3, 'b': 0, 'c': 1}, {'a': 2, 'b': 1, 'c': 0}]
    >>> [sorted(part.leads) for part in dealt]
    [['a'], ['b']]
    """
    parts = [Part() for _ in range(number)]
    led: set[str] = set()
    first = 0
    for engine in sorted(limits):
        each, rest = divmod(limits[engine], max(1, number))
        for rank, part in enumerate(parts):
            part.shares[engine] = each + ((rank - first) % number < rest)
        if parts and models[engine] not in led:
            led.add(models[engine])
            parts[first].leads.add(models[engine])
        first = (first + rest) % max(1, number)
    return parts


def asks(share: int, used: int, full: bool, idle: bool) -> int:
    """How many requests a worker could have on an engine, of which it uses some.

    One that has no place left could use more. One that was not full for a while keeps
    some room for what comes:

    >>> asks(16, 16, full=True, idle=False), asks(16, 9, full=False, idle=False)
    (32, 16)
    >>> asks(16, 2, full=False, idle=True)
    4
    """
    if full:
        return max(share, 2 * used)
    return used + max(1, share // PARTS_KEPT) if idle else max(share, used)


def lend(shares: Sequence[int], asked: Sequence[int]) -> list[int]:
    """The shares of one engine, once those who ask for less lend to those who ask more.

    >>> lend([8, 8, 8], [2, 12, 8])
    [4, 12, 8]
    """
    short = sum(max(0, want - share) for share, want in zip(shares, asked, strict=True))
    found, lent = [], 0
    for share, want in zip(shares, asked, strict=True):
        spare = min(max(0, share - want), short - lent)
        lent += spare
        found.append(share - spare)
    for rank, want in enumerate(asked):
        more = min(lent, max(0, want - shares[rank]))
        lent -= more
        found[rank] += more
    return found
