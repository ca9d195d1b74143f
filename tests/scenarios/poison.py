"""Poison: requests at which any engine fails. They cost themselves and nothing else.

Each run is compared with one of the same requests whose workers know which of them no
engine can answer, and of which control leaves all engines alone.
"""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from random import Random

from tests.scenarios.fleet import Fleet
from tests.scenarios.staging import (
    HOUR,
    LOAD,
    MINUTE,
    Got,
    Scenario,
    conclude,
    first_drain,
    new_fleet,
    others_touched,
    warm,
)
from tests.scenarios.workers import Way

#: The share of the oracle's good answers that there should be.
GOOD = 0.95


@dataclass(frozen=True, slots=True)
class Course:
    """What came of one run."""

    #: Good answers until the end.
    good: int
    #: Requests that waited in the middle, and at the end.
    waiting: tuple[int, ...]
    fleet: Fleet


def run(
    fleet: Fleet,
    steps: list[tuple[float, Callable[[Fleet], None]]],
    way: Way = Way.CARRIED,
) -> Course:
    """What comes of some changes, each followed by seconds of time."""
    fleet = deepcopy(fleet)
    fleet.arrivals, fleet.workers.way = Random(fleet.seed), way
    if way is Way.ORACLE:
        store = fleet.store
        fleet.control_until = math.inf
        store.wishes = {n: replace(w, limit=0) for n, w in store.wishes.items()}
    before, waiting = fleet.counts["done"], []
    for seconds, change in steps:
        change(fleet)
        fleet.run(seconds)
        waiting.append(fleet.workers.waiting)
    return Course(fleet.counts["done"] - before, tuple(waiting), fleet)


def poisoned(
    share: float, late: bool = False, load: float = 1.0
) -> Callable[[Fleet], None]:
    """From now on this share of requests is poisonous."""

    def change(fleet: Fleet) -> None:
        stream = fleet.streams[0]
        stream.poison, stream.poison_late = share, late
        fleet.change(stream, per_second=LOAD * load * len(fleet.slots) / 8)

    return change
