"""A bound on retries, so that a storm of faults does not double the load."""

from dataclasses import dataclass


@dataclass(slots=True)
class RetryBudget:
    """A bucket of retries for one model: each first attempt pays in a share of one.

    Times are seconds of any clock that only goes forward.
    """

    #: Retries that each request pays in with its first attempt.
    share: float = 0.2
    #: Most retries that may be saved up.
    most: float = 100.0
    #: Retries that come in besides, so that a lone request is tried again too.
    per_second: float = 1.0
    #: Retries that are there now; below 0 those that are taken in advance.
    saved: float = 100.0
    #: Most retries that may be taken in advance: the longest wait at one a second.
    most_owed: float = 10.0
    #: When ``saved`` was last brought up to date.
    at: float | None = None

    def attempted(self) -> None:
        """A request made its first attempt."""
        self.saved = min(self.most, self.saved + self.share)

    def take(self, now: float, cost: float = 1.0) -> float:
        """Take one retry, or as much of one; returns the seconds until it is there.

        >>> budget = RetryBudget(saved=1.0)
        >>> budget.take(0.0), budget.take(0.0), budget.take(0.0), budget.take(3.0)
        (0.0, 1.0, 2.0, 0.0)

        However many fail at once, none waits for ever:

        >>> storm = RetryBudget()
        >>> max(storm.take(0.0) for _ in range(512))
        10.0
        """
        last = now if self.at is None else self.at
        self.at = max(now, last)
        trickled = (self.at - last) * self.per_second
        self.saved = min(self.most, self.saved + trickled)
        self.saved = max(-self.most_owed, self.saved - cost)
        return max(0.0, -self.saved / self.per_second)
