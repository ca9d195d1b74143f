"""How many places urgent requests need, by what they took of late. Pure.

Filler, of the least urgent priority, leaves so many free: an urgent request finds a
place when it comes, beside a batch that would take them all.
"""

import math
from collections import defaultdict, deque

#: Urgent requests are remembered for so long, in seconds.
MEMORY_SECONDS = 60.0
#: Free places are for what comes at once by chance: so many standard deviations of a
#: Poisson process above the mean.
DEVIATIONS = 2.0
#: Filler leaves this part of all places at most.
MOST_PART = 0.5


class UrgentRequests:
    """The urgent requests of one worker, by model. Times are monotonic seconds."""

    def __init__(self) -> None:
        #: By model: those on engines now.
        self._running: defaultdict[str, int] = defaultdict(int)
        #: By model: a second, and the seconds that those took which ended in it.
        self._ended: defaultdict[str, deque[tuple[int, float]]] = defaultdict(deque)

    def begin(self, model: str) -> None:
        """One more is on an engine."""
        self._running[model] += 1

    def end(self, model: str, began: float, now: float) -> None:
        """It is no longer."""
        self._running[model] -= 1
        ended, second = self._ended[model], int(now)
        before = ended.pop()[1] if ended and ended[-1][0] == second else 0.0
        ended.append((second, before + now - began))

    def free_places(self, model: str, places: int, now: float) -> int:
        """Of so many places those that filler leaves free besides the urgent ones.

        >>> urgent = UrgentRequests()
        >>> for place in range(120):  # Two a second, half a second each.
        ...     urgent.begin("m")
        ...     urgent.end("m", place / 2, place / 2 + 0.5)
        >>> urgent.free_places("m", 16, now=60)
        3
        >>> urgent.free_places("m", 16, now=200)
        0
        """
        ended = self._ended[model]
        while ended and ended[0][0] < now - MEMORY_SECONDS:
            ended.popleft()
        if not ended:
            return 0
        mean = sum(seconds for _, seconds in ended) / MEMORY_SECONDS
        needed = math.ceil(mean + DEVIATIONS * math.sqrt(mean))
        needed = min(needed, int(places * MOST_PART))
        return max(0, needed - self._running[model])
