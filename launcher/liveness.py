"""Evidence that an engine generates tokens: from traffic, its counters, or a probe."""

import asyncio
import logging
import time

import aiohttp

from modelserver.client import EngineFault, generated_tokens, prove
from modelserver.model import EngineLoad, ModelSpec

_log = logging.getLogger(__name__)

#: How often the counters are read while no finished request proves the engine alive.
CHECK_SECONDS = 2.0
#: Without other evidence for so long, the engine is asked for a token.
QUIET_SECONDS = 5.0
#: With requests on it and no token for so long, an engine is reported as silent, and
#: for how long in steps of this, so that not every second is news. In seconds.
SILENT_SECONDS = 10
#: How long that token may take; behind long prompts it waits its turn.
PROBE_SECONDS = 15.0


class Pulse:
    """The freshest evidence for one READY engine. Times are monotonic seconds.

    Judges nothing: an old ``alive_at`` is control's business.
    """

    def __init__(
        self, session: aiohttp.ClientSession, url: str, model: ModelSpec, now: float
    ) -> None:
        self._session = session
        self._url = url
        self._model = model
        self._tokens: float | None = None
        self._next_check = now + CHECK_SECONDS
        self._check: asyncio.Task[None] | None = None
        self.alive_at = now
        self.misses = 0
        self.fault = ""

    def tick(self, now: float, load: EngineLoad | None, load_at: float) -> None:
        """Take what traffic shows, and look closer where it shows nothing."""
        if load is not None and load.idle_seconds < QUIET_SECONDS:
            self._alive(load_at - load.idle_seconds)
        if self._check is not None and not self._check.done():
            return
        quiet = now - self.alive_at >= CHECK_SECONDS
        if quiet and now >= self._next_check:
            self._next_check = now + CHECK_SECONDS
            self._check = asyncio.create_task(self._look())

    def silence(self, now: float, load: EngineLoad | None) -> int:
        """Seconds without a token although it has requests, 0 while that is short."""
        return silence(now - self.alive_at, load.inflight if load else 0)

    def stop(self) -> None:
        """Ask the engine nothing more."""
        if self._check is not None:
            self._check.cancel()

    def _alive(self, at: float) -> None:
        self.alive_at = max(self.alive_at, at)

    async def _look(self) -> None:
        tokens = await generated_tokens(self._session, self._url)
        before, self._tokens = self._tokens, tokens
        if None not in (before, tokens) and tokens != before:
            self._answered()
        elif time.monotonic() - self.alive_at >= QUIET_SECONDS:
            await self._probe()

    async def _probe(self) -> None:
        model = self._model
        try:
            await prove(self._session, self._url, model.name, model.kind, PROBE_SECONDS)
        except EngineFault as error:
            self.misses += 1
            self.fault = str(error)
            if self.misses == 1:
                _log.warning("no proof of life: %s", error)
        else:
            self._answered()

    def _answered(self) -> None:
        self._alive(time.monotonic())
        self.misses = 0


def silence(seconds: float, inflight: int) -> int:
    """What is reported of an engine that gave its last token so long ago.

    >>> silence(27.4, 3), silence(27.4, 0), silence(4.0, 3)
    (20, 0, 0)
    """
    return int(seconds) // SILENT_SECONDS * SILENT_SECONDS if inflight else 0
