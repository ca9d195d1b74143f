"""What control does to engines, and what becomes of attempts, seen from outside."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import redis

from modelserver.measured import Sample
from modelserver.policy.health.memory import Health, HealthMemory, from_json
from modelserver.store import Store
from modelserver.store.fleet.control import read_memory
from modelserver.store.fleet.engines import read_engines
from modelserver.store.fleet.measurements import read_all_samples
from modelserver.values import Outcome

#: Time between two looks, in seconds.
PAUSE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Seen:
    """An engine at one look, kept where it differs from the look before.

    ``at`` is of the monotonic clock.
    """

    at: float
    engine: str
    incarnation: int
    health: Health
    serves: bool

    @property
    def is_taken_down(self) -> bool:
        """Whether control takes requests away from it, all or some."""
        return self.health.is_held or self.health is Health.DEGRADED


class Watch:
    """A thread that looks at the store; ``history`` is all that changed, oldest first.

    ``attempts`` are those that did not end well. A server that is away is waited for.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.history: list[Seen] = []
        self.attempts: dict[Outcome, set[Sample]] = {each: set() for each in Outcome}
        #: Why engines had the health that they had, in words, oldest first.
        self.reasons: list[str] = []
        self._last: dict[str, tuple[int, Health, bool]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no longer."""
        self._over.set()
        self._thread.join(10)

    def first(self, wanted: Callable[[Seen], bool], since: float) -> float:
        """When an engine was first seen so since a moment; NaN if it was not."""
        times = [each.at for each in self.history if each.at >= since and wanted(each)]
        return min(times, default=float("nan"))

    def _run(self) -> None:
        while not self._over.wait(PAUSE_SECONDS):
            with suppress(redis.ConnectionError, redis.TimeoutError):
                self._look()

    def _look(self) -> None:
        now, engines = time.monotonic(), read_engines(self._store)
        memory = remembered(self._store)
        for name, report in engines.items():
            own = memory.engines.get(name)
            health = own.health if own else Health.HEALTHY
            state = (report.incarnation, health, report.serves)
            if own and own.reason and own.reason not in self.reasons:
                self.reasons.append(own.reason)
            if self._last.get(name) != state:
                self._last[name] = state
                self.history.append(Seen(now, name, *state))
        for samples in read_all_samples(self._store, list(engines)).values():
            for sample in samples:
                if sample.outcome is not Outcome.OK:
                    self.attempts[sample.outcome].add(sample)


def remembered(store: Store) -> HealthMemory:
    """What control remembers of the engines' health."""
    return from_json(read_memory(store).get("health", ""))


def is_calibrated(store: Store, models: int) -> bool:
    """Whether control knows what requests of so many models take where all is well."""
    types = remembered(store).types.values()
    return sum(kind.fit is not None for kind in types) >= models
