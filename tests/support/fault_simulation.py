"""Requests on two or more engines in simulated time, to count whom is blamed."""

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from modelserver.engine_protocol import EngineFault
from modelserver.values import EngineReport, EngineState
from workers.engines.engine_slot import EngineSlot
from workers.engines.probes import OTHERS_SECONDS
from workers.requests.own_fault import FailedTries, ModelFailures

WRONG = EngineFault("status 500: a bad day", way="status 500")
#: Attempts before a request fails without a verdict.
MOST_TRIES = 20
#: Seconds that an engine takes to answer a probe.
PROBE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Weather:
    """What requests meet."""

    #: The share of requests that fail on every engine.
    poison: float = 0.0
    #: The share of attempts that engines fail at by chance.
    random: float = 0.0
    #: From when to when engines fail at everything that begins.
    broken: tuple[float, float] = (float("inf"), float("inf"))
    #: Seconds that a good attempt takes.
    generation: float = 1.0
    #: Seconds after which an attempt fails.
    failing: float = 1.0
    #: How far these differ, as a share; by little all end and begin at once.
    uneven: float = 0.3


@dataclass(slots=True, eq=False)
class _Request:
    is_poison: bool
    arrived: float
    tries: FailedTries | None = None
    attempts: int = 0


@dataclass(slots=True)
class Verdicts:
    """What became of the requests."""

    good: int = 0
    #: Attempts of each request at fault, until it was told so.
    attempts: list[int] = field(default_factory=list)
    #: Requests that were told so and are not at fault.
    wronged: int = 0
    #: Requests that failed without a verdict.
    given_up: int = 0
    #: Attempts that took an engine's time.
    spent: int = 0

    @property
    def mean_attempts(self) -> float:
        """Attempts of a request at fault."""
        return sum(self.attempts) / max(1, len(self.attempts))


class Simulation:
    """``places`` requests at a time run on each of the engines; others wait outside.

    Those that were tried before come first. Where requests arrive at a rate there is
    place for all.
    """

    def __init__(self, weather: Weather, engines: int = 2, seed: int = 1) -> None:
        self.weather = weather
        self.random = random.Random(seed)
        self.model = ModelFailures()
        self.verdicts = Verdicts()
        reports = [
            EngineReport(f"m-{n}", "m", "h", EngineState.READY, 1)
            for n in range(engines)
        ]
        self.slots = [EngineSlot(report, seen_at=0.0) for report in reports]
        self.now = 1.0
        #: Places that nobody has.
        self._free = math.inf
        #: Requests that wait for a place for their next attempt.
        self._again: deque[_Request] = deque()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def run(self, seconds: float, places: int = 16, rate: float = 0.0) -> Verdicts:
        """Keep so many places busy, or have so many requests a second arrive."""
        end = self.now + seconds
        if rate:
            self._arrive(rate, end)
        else:
            self._free, spread = 0, self.weather.uneven / 0.3
            for _ in range(places * len(self.slots)):
                self._after(spread * self.random.random(), lambda: self._next(end))
        while self._events:
            self.now, _, event = heapq.heappop(self._events)
            event()
        return self.verdicts

    def _after(self, seconds: float, event: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (self.now + seconds, self._number, event))

    def _arrive(self, rate: float, end: float) -> None:
        if self.now < end:
            self._try(self._request(), end)
            wait = self.random.expovariate(rate)
            self._after(wait, lambda: self._arrive(rate, end))

    def _next(self, end: float) -> None:
        """Give a place that is free to whoever comes next."""
        if self._again:
            self._try(self._again.popleft(), end)
        elif self.now < end and self._free < math.inf:
            self._try(self._request(), end)
        else:
            self._free += 1

    def _try_again(self, request: _Request, end: float) -> None:
        if self._free:
            self._free -= 1
            self._try(request, end)
        else:
            self._again.append(request)

    def _request(self) -> _Request:
        return _Request(self.random.random() < self.weather.poison, self.now)

    def _try(self, request: _Request, end: float) -> None:
        tried = request.tries.places if request.tries else set()
        slot = min(
            self.slots, key=lambda s: (s.record.place in tried, s.inflight, s.began_at)
        )
        number, began, weather = slot.begin(self.now), self.now, self.weather
        fails = request.is_poison or self._fails()
        request.attempts += 1
        self.verdicts.spent += 1
        seconds = weather.failing if fails else weather.generation
        seconds *= self.random.uniform(1 - weather.uneven, 1 + weather.uneven)

        def leave() -> None:
            slot.end(number, self.now, well=not fails)
            self._next(end)
            if fails:
                self._failed(request, slot, began, end)
            else:
                self.verdicts.good += 1
                if request.tries:
                    self.model.answered(request.tries)

        self._after(seconds, leave)

    def _fails(self) -> bool:
        """Whether what begins now fails by its engine."""
        first, last = self.weather.broken
        return first <= self.now < last or self.random.random() < self.weather.random

    def _probe(self, slot: EngineSlot, failed_at: float) -> None:
        """As ``workers.engines.probes`` does, once for each failure."""
        if max(slot.finished_at, slot.probed_at) <= failed_at and not self._fails():
            began = self.now
            self._after(PROBE_SECONDS, lambda: slot.note_probe(began))

    def _failed(
        self, request: _Request, slot: EngineSlot, began: float, end: float
    ) -> None:
        failed_at = self.now
        tries = request.tries = request.tries or FailedTries(self.model)
        tries.note(slot, WRONG, began, self.now)
        if len(tries.places) == len(self.slots):
            self._after(OTHERS_SECONDS, lambda: self._probe(slot, failed_at))
        if tries.is_own_fault:
            if request.is_poison:
                self.verdicts.attempts.append(request.attempts)
            else:
                self.verdicts.wronged += 1
        elif request.attempts >= MOST_TRIES:
            self.verdicts.given_up += 1
        else:
            wait = min(10.0, 0.1 * 2.0 ** (request.attempts - 1))
            wait *= self.random.uniform(0.5, 1.0)
            self._after(wait, lambda: self._try_again(request, end))
