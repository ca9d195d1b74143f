"""Tells the request that kills engines from those that were only near it.

A connection that breaks is no proof: the launcher's word that the engine died while it
served is. Every request that was on it then counts one crash. Counted ones go on one at
a time, so that the next death names its cause; at the second a request is poison.
"""

import asyncio
import time
from collections import defaultdict

from workers.roster import Roster, Slot

#: So many deaths of engines, with the request on them, make it poison.
CRASHES_TO_POISON = 2
#: How long after a broken connection a death may be reported, in seconds.
REPORT_SECONDS = 3.0
LOOK_SECONDS = 0.1


class Crashes:
    """What this worker knows of deaths. Lives on the loop's thread."""

    def __init__(self, roster: Roster) -> None:
        self.roster = roster
        self._single_file: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def confirmed(self, slot: Slot) -> bool:
        """Whether the engine died by itself, as its launcher says within a moment."""
        engine = slot.engine
        end = time.monotonic() + REPORT_SECONDS
        while time.monotonic() < end:
            if self.roster.died.get(engine.id, 0) >= engine.incarnation:
                return True
            await asyncio.sleep(LOOK_SECONDS)
        return False

    def single_file(self, model: str) -> asyncio.Lock:
        """Held by the one suspected request of a model that runs now."""
        return self._single_file[model]
