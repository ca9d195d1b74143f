"""The figures of one model under load, and what one more or one fewer would change.

Q is the work that waits, n its engines, μ what one of them does in a second, λ what
arrives in a second, T the seconds until a moved engine serves.
"""

import math
from dataclasses import dataclass

from modelserver.policy.rebalance.state import RebalanceRules

#: The seconds that a queue which does not get shorter is taken to drain for.
NEVER_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Pressure:
    """A model that has, or would have, so many engines."""

    #: Q.
    queue: float
    #: λ.
    arrivals: float
    #: μ.
    capacity: float
    #: n, those on their way included.
    engines: int

    @property
    def work_seconds(self) -> float:
        """G: the queue in seconds of all engines' work, Q / (n·μ)."""
        speed = self.engines * self.capacity
        if speed > 0:
            return self.queue / speed
        return math.inf if self.queue > 0 else 0.0

    @property
    def drain_seconds(self) -> float:
        """D: until the queue is empty, Q / (n·μ - λ); an hour if it never is."""
        if self.queue <= 0:
            return 0.0
        left = self.engines * self.capacity - self.arrivals
        return min(self.queue / left, NEVER_SECONDS) if left > 0 else NEVER_SECONDS

    def is_hot(self, seconds: float, rules: RebalanceRules) -> bool:
        """Whether the queue is worth a move that takes T ``seconds``."""
        drain = max(rules.hot_drain_seconds, rules.hot_drain_times * seconds)
        return self.drain_seconds >= drain and self.work_seconds >= least_work(
            seconds, rules
        )

    def gain_seconds(self, seconds: float) -> float:
        """How much sooner the queue is empty with one engine more after T ``seconds``.

        D - D_after, with D_after = T + [Q + (λ - n·μ)·T]⁺ / ((n + 1)·μ - λ).
        """
        speed = self.engines * self.capacity
        left = max(0.0, self.queue + (self.arrivals - speed) * seconds)
        more = speed + self.capacity - self.arrivals
        after = left / more if more > 0 else NEVER_SECONDS
        return self.drain_seconds - min(NEVER_SECONDS, seconds + after)

    def pays(self, seconds: float) -> bool:
        """Whether that gain is at least what the move takes; a full hour always is."""
        if self.drain_seconds >= NEVER_SECONDS:
            return True
        return self.gain_seconds(seconds) >= seconds

    def bears(self, load: float, drain_seconds: float) -> bool:
        """Whether these engines carry λ at this share of μ and soon have no queue."""
        speed = self.engines * self.capacity
        if self.engines < 1 or self.arrivals > load * speed:
            return False
        return self.drain_seconds <= drain_seconds

    def figures(self) -> dict[str, float | str]:
        """The same for people and the decision log."""
        return {
            "Q": float(self.queue),
            "n": str(self.engines),
            "lambda": self.arrivals,
            "mu": self.capacity,
            "G": self.work_seconds,
            "D": self.drain_seconds,
        }


def least_work(seconds: float, rules: RebalanceRules) -> float:
    """The G from which a model is hot, where a move takes T ``seconds``."""
    return max(rules.hot_work_seconds, rules.hot_work_times * seconds)
