"""Tells the request that kills engines from those that only ran beside it.

A broken connection proves nothing; the launcher's report that the engine died while it
served does. Every request that was on the engine then counts one crash, and from then
on such requests run one at a time, so that the next death has one cause. At its second
crash a request is poison.
"""

import asyncio
import time
from collections import defaultdict

from workers.roster import EngineSlot, Roster

#: A request is poison once so many engines have died with it on them.
CRASHES_TO_POISON = 2
#: How long after a broken connection a death may still be reported, in seconds.
DEATH_REPORT_SECONDS = 3.0
#: How often the reports are looked at for it, in seconds.
DEATH_LOOK_SECONDS = 0.1


class Crashes:
    """What this worker knows of engines that died. Lives on the loop's thread."""

    def __init__(self, roster: Roster) -> None:
        self.roster = roster
        self._single_file: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def is_confirmed(self, slot: EngineSlot) -> bool:
        """Whether the launcher reports within a moment that the engine died."""
        engine = slot.engine
        end = time.monotonic() + DEATH_REPORT_SECONDS
        while time.monotonic() < end:
            if self.roster.died.get(engine.id, 0) >= engine.incarnation:
                return True
            await asyncio.sleep(DEATH_LOOK_SECONDS)
        return False

    def single_file(self, model: str) -> asyncio.Lock:
        """The lock of the one request under suspicion of a model that runs now."""
        return self._single_file[model]
