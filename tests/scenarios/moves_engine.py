"""An engine of the world in which GPUs move.

Its time for a batch of ``b`` is ``12.8 + 0.24·b`` seconds: decoding is bound by memory,
so a large batch costs little more than a small one.
"""

import math
from dataclasses import dataclass

from modelserver.values import EngineState

#: Seconds of an empty batch.
BATCH_SECONDS = 12.8
#: Seconds that each request adds to its batch.
REQUEST_SECONDS = 0.24
#: Requests that an engine answers in a second with its 64 requests in flight.
FULL_RATE = 64 / (BATCH_SECONDS + 64 * REQUEST_SECONDS)


@dataclass
class SimulatedEngine:
    """One engine: what it holds, and how far it is with it."""

    id: str
    model: str
    host: str
    uuids: tuple[str, ...]
    ready_at: float
    state: EngineState = EngineState.STARTING
    inflight: int = 0
    size: float = 1.0
    credit: float = 0.0
    finished: int = 0
    drained_at: float = math.inf

    def take(self, count: int, size: float) -> None:
        """Take requests of a size; ``size`` is the mean of what is in flight."""
        whole = self.inflight + count
        self.size = (self.inflight * self.size + count * size) / whole
        self.inflight = whole

    def work(self) -> None:
        """Answer the requests that a second is enough for."""
        if self.inflight:
            seconds = BATCH_SECONDS + REQUEST_SECONDS * self.inflight
            self.credit += self.inflight / (seconds * self.size)
            done = min(self.inflight, int(self.credit))
            self.credit -= done
            self.inflight -= done
            self.finished += done
