"""A second engine for a request that takes longer than most, within a budget.

The first answer wins. The other attempt is cancelled, which closes its connection, and
is no fault of its engine.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from modelserver.engine_protocol import EngineFault
from workers.engines.engine_slot import EngineSlot
from workers.engines.roster import Roster
from workers.requests.work import Work

#: Of all requests that may get a second engine so many do.
SHARE = 0.02
#: Most second attempts that are saved up.
MOST_SAVED = 10.0
#: A second engine is asked after the time that this part of the requests take.
PART = 0.95
#: A size of requests is known after so many answers; the latest of them are kept.
FEWEST, KEPT = 20, 200
#: Where no second engine is to be had, one is looked for again after so many seconds
#: at least.
AGAIN_SECONDS = 0.1
#: Times are kept of so many sizes of each model at most.
MOST_SIZES = 64


@dataclass(slots=True)
class AnswerTimes:
    """How long the requests of one model take, by their size. Pure."""

    #: By size: the seconds of the last requests.
    _seconds: dict[tuple[int, int], deque[float]] = field(default_factory=dict)

    def note(self, size: tuple[int, int], seconds: float) -> None:
        """A request was answered."""
        if size not in self._seconds and len(self._seconds) >= MOST_SIZES:
            self._seconds.pop(next(iter(self._seconds)))
        self._seconds.setdefault(size, deque(maxlen=KEPT)).append(seconds)

    def find_most(self, size: tuple[int, int]) -> float | None:
        """Seconds in which 95 % of such requests are answered; None while unknown.

        >>> times = AnswerTimes()
        >>> for number in range(100):
        ...     times.note((4, 2), float(number))
        >>> times.find_most((4, 2)), times.find_most((5, 2))
        (95.0, None)
        """
        seconds = sorted(self._seconds.get(size, ()))
        return seconds[int(PART * len(seconds))] if len(seconds) >= FEWEST else None


def find_size(work: Work) -> tuple[int, int]:
    """The size of a request: its bytes and its most tokens, each to a factor of 4."""
    most = work.body.get("max_completion_tokens") or work.body.get("max_tokens") or 0
    return work.size.bit_length() // 2, int(most).bit_length() // 2


@dataclass(slots=True)
class _Race:
    """A request that may be on two engines."""

    #: Ends the first attempt once the second has the answer.
    cut: asyncio.Timeout
    #: Whether the first attempt still runs.
    is_first_open: bool = True
    #: Whether the second one runs, or has the answer.
    is_hedged: bool = False


class Hedges:
    """Runs attempts, some of them twice. Lives on the loop's thread.

    ``attempt`` runs a request on an engine; ``note_fault`` hears of an engine that
    failed at a request which another one has as well.
    """

    def __init__(
        self,
        roster: Roster,
        attempt: Callable[[EngineSlot, Work], Coroutine[Any, Any, Any]],
        note_fault: Callable[[EngineSlot, EngineFault, Work, float], None],
    ) -> None:
        self._roster = roster
        self._attempt = attempt
        self._note_fault = note_fault
        #: By model.
        self._times: defaultdict[str, AnswerTimes] = defaultdict(AnswerTimes)
        #: By model: second attempts that are saved up.
        self._saved: defaultdict[str, float] = defaultdict(float)

    async def answer(self, slot: EngineSlot, work: Work) -> Any:
        """The answer of this engine, or of another that is faster.

        Raises as the attempt at this engine does.
        """
        if not work.may_be_hedged:
            return await self._attempt(slot, work)
        began, size, times = monotonic(), find_size(work), self._times[work.model]
        saved = self._saved[work.model] + SHARE
        self._saved[work.model] = min(MOST_SAVED, saved)
        if (most := times.find_most(size)) is None:
            value = await self._attempt(slot, work)
        else:
            value = await self._race(slot, work, most)
        times.note(size, monotonic() - began)
        return value

    async def _race(self, slot: EngineSlot, work: Work, most: float) -> Any:
        race, began = _Race(asyncio.timeout(None)), monotonic()
        second = asyncio.create_task(self._second(slot, work, most, race))
        try:
            async with race.cut:
                return await self._attempt(slot, work)
        except TimeoutError:
            if not race.cut.expired():
                raise
            return second.result()
        except EngineFault as fault:
            race.is_first_open = False
            if not race.is_hedged:
                raise
            with suppress(EngineFault):
                value = await second
                self._note_fault(slot, fault, work, began)
                return value
            raise
        finally:
            race.is_first_open = False
            second.cancel()
            await asyncio.gather(second, return_exceptions=True)

    async def _second(
        self, first: EngineSlot, work: Work, most: float, race: _Race
    ) -> Any:
        slot, wait = None, most
        while slot is None:
            await asyncio.sleep(wait)
            slot, wait = self._find_second(first, work), max(most, AGAIN_SECONDS)
        race.is_hedged, began = True, monotonic()
        try:
            return await self._attempt(slot, work)
        except EngineFault as fault:
            race.is_hedged = False
            self._note_fault(slot, fault, work, began)
            raise
        finally:
            if race.is_first_open and race.is_hedged:
                race.cut.reschedule(asyncio.get_running_loop().time())

    def _find_second(self, first: EngineSlot, work: Work) -> EngineSlot | None:
        """Another engine that has a place, if the budget has one more attempt."""
        slot = self._roster.choose(work.model, [first.engine.id])
        if slot is None or slot is first or not self._roster.has_place(slot, False):
            return None
        if self._saved[work.model] < 1.0:
            return None
        self._saved[work.model] -= 1.0
        return slot
