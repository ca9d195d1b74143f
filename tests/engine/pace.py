"""How long generations take: a fixed time, or steps of a shared batch."""

import asyncio
from dataclasses import dataclass
from typing import Protocol

from tests.engine.batching import Batch, Job, StepCosts
from tests.engine.faults import FaultBoard

#: How far behind its schedule a batch may fall and still catch up, in seconds.
CATCH_UP_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Load:
    """What the engine is busy with."""

    running: int
    waiting: int
    held_tokens: int
    generated_tokens: int


class Pace(Protocol):
    """Runs jobs; `run` returns the tokens of each sequence, and may be cancelled."""

    async def run(self, key: int, job: Job) -> int: ...

    def abort(self, key: int) -> None:
        """End a job early, with the tokens it has."""

    def tokens(self, key: int) -> int:
        """The tokens that a job has so far."""

    def load(self) -> Load: ...

    async def turn(self) -> None:
        """Work in the background until cancelled."""


class FixedPace:
    """Every request takes the same time, whatever the load.

    Its tokens count when it ends.
    """

    def __init__(self, latency_seconds: float, faults: FaultBoard) -> None:
        self._latency_seconds = latency_seconds
        self._faults = faults
        self._ends: dict[int, asyncio.Future[int]] = {}
        #: By job: when it began, how long it takes, its tokens.
        self._spans: dict[int, tuple[float, float, int]] = {}
        self._generated = 0

    async def run(self, key: int, job: Job) -> int:
        loop = asyncio.get_running_loop()
        end: asyncio.Future[int] = loop.create_future()
        self._ends[key] = end
        seconds = self._latency_seconds * self._faults.slow_factor()
        self._spans[key] = (loop.time(), seconds, job.max_tokens)
        timer = loop.call_later(seconds, _settle, end, job.max_tokens)
        try:
            tokens = await end
            await self._faults.moving()
        finally:
            timer.cancel()
            del self._ends[key], self._spans[key]
        self._generated += tokens * job.width
        return tokens

    def abort(self, key: int) -> None:
        if key in self._ends:
            _settle(self._ends[key], 0)

    def tokens(self, key: int) -> int:
        began, seconds, most = self._spans.get(key, (0.0, 0.0, 0))
        passed = asyncio.get_running_loop().time() - began
        return int(min(1.0, passed / seconds) * most) if seconds else most

    def load(self) -> Load:
        return Load(len(self._ends), 0, 0, self._generated)

    async def turn(self) -> None:
        return


class SteppedPace:
    """Requests share the steps of one batch."""

    def __init__(self, costs: StepCosts, faults: FaultBoard) -> None:
        self._batch = Batch(costs)
        self._faults = faults
        self._ends: dict[int, asyncio.Future[int]] = {}
        self._jobs: dict[int, Job] = {}
        self._work = asyncio.Event()

    async def run(self, key: int, job: Job) -> int:
        end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._ends[key] = end
        self._jobs[key] = job
        self._batch.add(key, job)
        self._work.set()
        try:
            return await end
        finally:
            self._batch.drop(key)
            del self._ends[key], self._jobs[key]

    def abort(self, key: int) -> None:
        if key in self._ends:
            _settle(self._ends[key], self._batch.drop(key))

    def tokens(self, key: int) -> int:
        return self._batch.tokens(key)

    def load(self) -> Load:
        batch = self._batch
        return Load(batch.running, batch.waiting, batch.held_tokens, batch.generated)

    async def turn(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            if self._batch.idle:
                self._work.clear()
                await self._work.wait()
                due = loop.time()
            step = self._batch.plan()
            # Counted from when the last step was due, not from when it was done:
            # the steps keep their mean length on a busy host.
            due = max(due, loop.time() - CATCH_UP_SECONDS)
            due += step.seconds * self._faults.slow_factor()
            await asyncio.sleep(due - loop.time())
            await self._faults.moving()
            for key in self._batch.advance(step):
                _settle(self._ends[key], self._jobs[key].max_tokens)


def _settle(end: "asyncio.Future[int]", tokens: int) -> None:
    if not end.done():
        end.set_result(tokens)
