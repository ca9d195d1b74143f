"""Asks an engine that failed for one token, where no other request tells how it does.

A request that fails again says something only where the engine answered in between. At
the end of a batch nobody else asks, so that the worker does.
"""

import asyncio
import time

import aiohttp

from modelserver.engine_client import prove
from modelserver.engine_protocol import EngineFault
from modelserver.values import Kind
from workers.engines.engine_slot import EngineSlot

#: Seconds for which other requests may tell how the engine does.
OTHERS_SECONDS = 0.1
#: Seconds that an engine has for its answer.
PROBE_SECONDS = 5.0


class Probes:
    """At most one for each engine at a time. Lives on the loop's thread."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.running: set[asyncio.Task[None]] = set()
        #: When engines that are asked last failed, by the monotonic clock.
        self._failed_at: dict[int, float] = {}

    def after_failure(self, slot: EngineSlot, model: str, kind: Kind) -> None:
        """The engine has just failed at a request."""
        is_asked = id(slot) in self._failed_at
        self._failed_at[id(slot)] = time.monotonic()
        if not is_asked:
            task = asyncio.get_running_loop().create_task(self._ask(slot, model, kind))
            self.running.add(task)
            task.add_done_callback(self.running.discard)

    async def _ask(self, slot: EngineSlot, model: str, kind: Kind) -> None:
        """Until something was answered since it failed last, or it does not answer."""
        try:
            while max(slot.finished_at, slot.probed_at) <= self._failed_at[id(slot)]:
                await asyncio.sleep(OTHERS_SECONDS)
                began = time.monotonic()
                if slot.finished_at > self._failed_at[id(slot)]:
                    return
                if not slot.usable(began):
                    return
                await prove(self.session, slot.engine.url, model, kind, PROBE_SECONDS)
                slot.note_probe(began)
        except EngineFault:
            return  # It says nothing of any request.
        finally:
            del self._failed_at[id(slot)]
