"""Histograms of times, as counters in a hash of Redis. Pure."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class Times:
    """What was counted of some times."""

    #: How many there were in each bucket alone.
    counts: tuple[int, ...]
    #: All of them together.
    seconds: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """Which counters hold the times of one kind."""

    #: How the names of the counters begin.
    name: str
    #: The upper bounds of the buckets in seconds; one more bucket has none.
    bounds: tuple[float, ...]

    def count(self, times: Iterable[float]) -> Counter[str]:
        """What these times add to the counters.

        >>> Histogram("took", (1, 5)).count([0.5, 0.7, 9])
        Counter({'took_milliseconds': 10200, 'took:0': 2, 'took:2': 1})
        """
        totals: Counter[str] = Counter()
        for seconds in times:
            totals[f"{self.name}:{bisect_left(self.bounds, seconds)}"] += 1
            totals[f"{self.name}_milliseconds"] += round(seconds * 1000)
        return totals

    def read(self, counters: Mapping[str, int]) -> Times:
        """What the counters say.

        >>> Histogram("took", (1, 5)).read({"took:2": 1, "took_milliseconds": 9000})
        Times(counts=(0, 0, 1), seconds=9.0)
        """
        places = range(len(self.bounds) + 1)
        counts = tuple(counters.get(f"{self.name}:{place}", 0) for place in places)
        return Times(counts, counters.get(f"{self.name}_milliseconds", 0) / 1000)

    def buckets(self, times: Times) -> list[tuple[str, float]]:
        """As Prometheus counts: each bucket, by its bound, with all below it.

        >>> Histogram("took", (1, 5)).buckets(Times((2, 0, 1), 10.2))
        [('1.0', 2), ('5.0', 2), ('+Inf', 3)]
        """
        bounds = (*(str(float(bound)) for bound in self.bounds), "+Inf")
        return list(zip(bounds, accumulate(times.counts), strict=True))


#: How long requests took an engine that went well.
TOOK = Histogram(
    "took", (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
)
#: How long requests had waited when an engine was first asked.
WAITED = Histogram(
    "waited", (0.01, 0.05, 0.25, 1, 5, 15, 60, 300, 900, 3600, 14_400, 86_400)
)
#: How long streamed answers took from their submission to their first token.
FIRST_TOKEN = Histogram(
    "first_token", (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
)
