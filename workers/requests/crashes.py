"""Tells the request that kills engines from those that only ran beside it.

A broken connection proves nothing; the launcher's report that the engine died while it
served does. Every request that was on the engine is then a suspect. From then on an
engine gets a quarter of those that died together at a time, beside other requests, and
after the next death a quarter of that quarter, down to one. A suspect that was alone
among others is poison when its engine dies.
"""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from workers.engines.engine_slot import EngineSlot
from workers.engines.roster import Roster

#: A request is poison once so many engines have died of it by all evidence.
CRASHES_TO_POISON = 2
#: Of suspects that died together an engine gets one part of so many at a time.
SUSPECT_PARTS = 4
#: How long after a broken connection a death may still be reported, in seconds.
DEATH_REPORT_SECONDS = 3.0
#: How often the reports are looked at for it, in seconds.
DEATH_LOOK_SECONDS = 0.1
#: How often a suspect looks whether engines have come, in seconds.
LANE_LOOK_SECONDS = 0.5


def suspects_at_once(together: int) -> int:
    """How many of suspects that died together an engine gets at a time.

    >>> [suspects_at_once(together) for together in (64, 16, 4, 1)]
    [16, 4, 1, 1]
    """
    return max(1, together // SUSPECT_PARTS)


@dataclass(slots=True)
class Death:
    """An engine's death: the tags of what was on it."""

    incarnation: int
    #: Requests that were suspects before.
    suspects: set[str] = field(default_factory=set)
    #: All others.
    others: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Lane:
    """The suspects of one model that run now."""

    #: For each, how many like it an engine may have.
    running: list[int] = field(default_factory=list)
    #: Set, and replaced, when one has ended.
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Crashes:
    """What this worker knows of engines that died. Lives on the loop's thread."""

    def __init__(self, roster: Roster) -> None:
        self.roster = roster
        self._deaths: dict[str, Death] = {}
        self._lanes: defaultdict[str, _Lane] = defaultdict(_Lane)

    async def find_death(
        self, slot: EngineSlot, tag: str, suspect: bool
    ) -> Death | None:
        """The death that broke this request's connection, if one is reported soon."""
        engine = slot.engine
        death = self._deaths.get(engine.id)
        if death is None or death.incarnation != engine.incarnation:
            death = self._deaths[engine.id] = Death(engine.incarnation)
        (death.suspects if suspect else death.others).add(tag)
        end = time.monotonic() + DEATH_REPORT_SECONDS
        while time.monotonic() < end:
            # First: the others' connections break in the same moment.
            await asyncio.sleep(DEATH_LOOK_SECONDS)
            if self.roster.died.get(engine.id, 0) >= engine.incarnation:
                return death
        death.suspects.discard(tag)
        death.others.discard(tag)
        return None

    @contextlib.asynccontextmanager
    async def lane(self, model: str, at_once: int) -> AsyncIterator[None]:
        """Wait until one more suspect may run, ``at_once`` on each engine."""
        lane = self._lanes[model]
        while len(lane.running) >= min([at_once, *lane.running]) * self._engines(model):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LANE_LOOK_SECONDS):
                    await lane.ended.wait()
        lane.running.append(at_once)
        try:
            yield
        finally:
            lane.running.remove(at_once)
            lane.ended.set()
            lane.ended = asyncio.Event()

    def suspects(self, model: str) -> int:
        """How many suspects of a model run."""
        return len(self._lanes[model].running) if model in self._lanes else 0

    def _engines(self, model: str) -> int:
        now = time.monotonic()
        slots = self.roster.slots.values()
        return max(1, sum(s.engine.model == model and s.usable(now) for s in slots))

    def full(self, model: str, at_once: int) -> list[str]:
        """The engines of a model that have as many suspects as they may."""
        return [
            slot.engine.id
            for slot in self.roster.slots.values()
            if slot.engine.model == model and slot.suspects >= at_once
        ]
