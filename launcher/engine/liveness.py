"""Evidence that an engine generates tokens: from traffic, its counters, or a request.

The same look at its metrics tells how it copes with its requests.
"""

import asyncio
import logging
import time
from collections import deque

import aiohttp

from launcher.engine.engine_metrics import MetricsReading, median_gap, read_metrics
from modelserver.engine_client import count_tokens, metrics_page, prove
from modelserver.engine_protocol import EngineFault
from modelserver.measured import EngineLoad, Metrics
from modelserver.values import Kind, ModelSpec

_log = logging.getLogger(__name__)

#: Seconds between two looks at its counters while no finished request proves it alive.
COUNTERS_SECONDS = 2.0
#: Seconds between two looks at its metrics while it has requests.
BUSY_METRICS_SECONDS = 2.5
#: How it copes is told of the time between the first and the last of 3 looks.
METRICS_LOOKS = 3
#: Seconds without other evidence after which the engine is asked for a token.
UNPROVED_SECONDS = 5.0
#: Seconds that this token may take: it waits its turn behind long prompts.
LIVENESS_PROOF_SECONDS = 15.0
#: Seconds of silence, of an engine that has requests, are reported in steps of 10, so
#: that not every second is news.
SILENCE_STEP_SECONDS = 10


class Liveness:
    """The freshest evidence for one READY engine. Times are monotonic seconds.

    Judges nothing: control says what an old ``alive_at`` means.
    """

    def __init__(
        self, session: aiohttp.ClientSession, url: str, model: ModelSpec, now: float
    ) -> None:
        self._session = session
        self._url = url
        self._model = model
        self._tokens: float | None = None
        self._moved_at = self._looked_at = now
        self._looks: deque[MetricsReading] = deque(maxlen=METRICS_LOOKS)
        self._inflight = 0
        self._next_check = now + COUNTERS_SECONDS
        self._check: asyncio.Task[None] | None = None
        self.alive_at = now
        self.failed_proofs = 0
        self.fault = ""

    def tick(self, now: float, load: EngineLoad | None, load_at: float) -> None:
        """Take what the traffic shows; look at the engine where it shows nothing."""
        self._inflight = load.inflight if load else 0
        if load is not None and load.idle_seconds < UNPROVED_SECONDS:
            self._note_alive(load_at - load.idle_seconds)
        if self._check is not None and not self._check.done():
            return
        quiet = now - self.alive_at >= COUNTERS_SECONDS
        if (quiet or self._inflight) and now >= self._next_check:
            pause = BUSY_METRICS_SECONDS if self._inflight else COUNTERS_SECONDS
            self._next_check = now + pause
            self._check = asyncio.create_task(self._look())

    def busy_at(self, now: float) -> float:
        """When it was last seen to have requests, -inf if it has none now."""
        has_some = bool(self._looks) and self._looks[-1].requests > 0
        # While no token comes, the number of requests is an old one.
        busy = has_some and now - self._moved_at < UNPROVED_SECONDS
        return self._looked_at if busy else float("-inf")

    @property
    def metrics(self) -> Metrics | None:
        """How it copes; None without requests or metrics. Its times are monotonic."""
        if not self._looks or not self._inflight:
            return None
        first, last = self._looks[0], self._looks[-1]
        return Metrics(
            waiting=last.waiting + max(0, last.retracted - first.retracted),
            kv_use=round(last.kv_use, 3),
            itl_seconds=round(median_gap(first.gaps, last.gaps), 4),
            tokens_at=self._moved_at if self._counts_on_the_way(last) else 0.0,
        )

    def _counts_on_the_way(self, last: MetricsReading) -> bool:
        """Whether its counter moves before an answer is complete.

        Vectors come all at once, so a long text is silence until its answer.
        """
        return last.tokens is not None and self._model.kind is not Kind.EMBEDDING

    def silent_seconds(self, now: float, load: EngineLoad | None) -> int:
        """Seconds without a token although it has requests, 0 while that is short."""
        return silence_in_steps(now - self.alive_at, load.inflight if load else 0)

    def stop(self) -> None:
        """Ask the engine nothing more."""
        if self._check is not None:
            self._check.cancel()

    def _note_alive(self, at: float) -> None:
        self.alive_at = max(self.alive_at, at)

    async def _look(self) -> None:
        page = await metrics_page(self._session, self._url)
        self._looked_at = time.monotonic()
        tokens, reading = count_tokens(page), read_metrics(page)
        if reading is not None:
            self._looks.append(reading)
        elif page:
            self._looks.clear()  # Without a page it may only be slow: then they stay.
        before, self._tokens = self._tokens, tokens
        if None not in (before, tokens) and tokens != before:
            self._moved_at = self._looked_at
            self.note_token()
        elif time.monotonic() - self.alive_at >= UNPROVED_SECONDS:
            await self._ask_for_token()

    async def _ask_for_token(self) -> None:
        model = self._model
        try:
            await prove(
                self._session, self._url, model.name, model.kind, LIVENESS_PROOF_SECONDS
            )
        except EngineFault as error:
            self.failed_proofs += 1
            self.fault = str(error)
            if self.failed_proofs == 1:
                _log.warning("%s gives no proof of life: %s", self._url, error)
        else:
            self.note_token()

    def note_token(self) -> None:
        """Note that it has just given a token."""
        self._note_alive(time.monotonic())
        self.failed_proofs = 0


def silence_in_steps(seconds: float, inflight: int) -> int:
    """The seconds of silence that are reported of an engine, 0 without requests.

    >>> [silence_in_steps(*each) for each in ((27.4, 3), (27.4, 0), (4.0, 3))]
    [20, 0, 0]
    """
    steps = int(seconds) // SILENCE_STEP_SECONDS if inflight else 0
    return steps * SILENCE_STEP_SECONDS
