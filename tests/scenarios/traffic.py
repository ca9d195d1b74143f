"""Simulated requests: how many, how long, and how that wanders."""

import math
from dataclasses import dataclass, field
from random import Random

from tests.scenarios.engine import Request

#: Seconds between two steps of the wandering.
WANDER_SECONDS = 30.0
#: The share of its way from the mean that it goes back at each step.
WANDER_HOME = 0.02
#: The share of requests with a cached prefix, which no engine reports.
CACHED = 0.3


@dataclass(slots=True)
class Lengths:
    """Log-normal lengths in tokens, and the longest that there are."""

    prompt_median: float = 500.0
    prompt_sigma: float = 0.9
    completion_median: float = 250.0
    completion_sigma: float = 0.7
    prompt_most: int = 30_000
    completion_most: int = 1_500


@dataclass(slots=True)
class Stream:
    """The requests for one model."""

    model: str
    #: May be changed while it runs.
    per_second: float
    lengths: Lengths = field(default_factory=Lengths)
    #: How far the load and the lengths go up and down by themselves, as a logarithm.
    wander: float = 0.0
    #: The number of requests that come at a time.
    burst: int = 1
    prompt_times: float = 1.0
    completion_times: float = 1.0
    #: The share of requests at which every engine fails.
    poison: float = 0.0
    #: Whether they fail after a full generation, not at once.
    poison_late: bool = False
    paths: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    wandered_at: float = 0.0
    version: int = 0
    sent: int = 0

    def gap(self, random: Random, now: float) -> float:
        """Seconds until the next requests come."""
        if self.wander and now - self.wandered_at >= WANDER_SECONDS:
            self.wandered_at = now
            step = self.wander * math.sqrt(2 * WANDER_HOME)
            self.paths = [
                path * (1 - WANDER_HOME) + random.gauss(0.0, step)
                for path in self.paths
            ]
        rate = self.per_second * math.exp(self.paths[0]) / self.burst
        return random.expovariate(rate) if rate > 0 else float("inf")

    def request(self, random: Random, number: int) -> Request:
        """The next request."""
        self.sent += 1
        lengths = self.lengths
        prompt = random.lognormvariate(
            math.log(lengths.prompt_median) + self.paths[1], lengths.prompt_sigma
        )
        completion = random.lognormvariate(
            math.log(lengths.completion_median) + self.paths[2],
            lengths.completion_sigma,
        )
        tokens = max(1, min(lengths.prompt_most, int(prompt * self.prompt_times)))
        cached = 0
        if random.random() < CACHED:
            cached = int(tokens * random.uniform(0.3, 0.95))
        answer = int(completion * self.completion_times)
        poisonous = self.poison > 0 and random.random() < self.poison
        return Request(
            id=number,
            model=self.model,
            prompt=tokens,
            cached=cached,
            completion=max(1, min(lengths.completion_most, answer)),
            poisonous=poisonous,
            fails_late=poisonous and self.poison_late,
        )
