"""Canaries: small requests to an empty engine that tell how fast it is.

One counts only if the engine was empty before, meanwhile and after. Who is slow is
control's business; here they are sent and timed.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import aiohttp

from modelserver.engine_client import (
    COMPLETIONS_PATH,
    EMBEDDINGS_PATH,
    EngineFault,
    RequestFault,
    ask,
)
from modelserver.values import EngineLoad, Kind, ModelSpec, Wish

_log = logging.getLogger(__name__)

#: About 60 tokens of text; a number before it makes it new to the engine's cache.
CANARY_TEXT = """\
The old lighthouse stood at the end of a long road. Every evening its keeper climbed \
the stairs, cleaned the lamp and wrote into a book which ships had passed, how the \
wind blew and what the sea looked like. One night in winter he wrote nothing, for"""
CANARY_TOKENS = 32
LONG_AGO = float("-inf")
#: So many at once are the loaded one.
CROWD = 8
#: A round: is it a loaded one?
ROUND = (False, False, False, True)
#: One that takes longer counts as so long, in seconds.
LONGEST_CANARY_SECONDS = 30.0
#: The engine must have been empty for so long: before one that control asks for, where
#: a worker's last request may be on its way, and before one that nobody asks for.
ASKED_EMPTY_SECONDS, UNASKED_EMPTY_SECONDS = 1.5, 5.0
#: Workers' reports are as old as this at most, and engines' metrics as this.
WORKER_REPORT_AGE_SECONDS, METRICS_AGE_SECONDS = 1.0, 0.5
#: An empty engine gets one unasked so often; after a failed one comes a pause.
UNASKED_EVERY_SECONDS, FAILED_PAUSE_SECONDS = 60.0, 5.0
#: What a new engine may spend on its first round before it serves, in seconds; one
#: that is slow to warm up has it later.
FIRST_ROUND_SECONDS, WARM_UP_SECONDS = 10.0, 2.5


@dataclass(frozen=True, slots=True)
class SentCanary:
    """One canary that was sent; ``began`` and ``ended`` are monotonic times."""

    began: float
    ended: float
    seconds: float
    loaded: bool
    round: int = 0


@dataclass(frozen=True, slots=True)
class EngineUse:
    """What is on an engine, as known at ``read_at``.

    ``answered_at`` is when a request of the workers last went well; ``busy_at`` is when
    the engine itself was last seen to have some, if it still may.
    """

    inflight: int
    answered_at: float
    read_at: float
    busy_at: float = LONG_AGO

    @classmethod
    def of(cls, load: EngineLoad | None, read_at: float, busy_at: float) -> "EngineUse":
        """From what workers report of it, if any does."""
        if load is None:
            return cls(0, LONG_AGO, read_at, busy_at)
        return cls(load.inflight, read_at - load.idle_seconds, read_at, busy_at)

    @property
    def empty(self) -> bool:
        """Whether nobody knows of a request on it."""
        return not self.inflight and self.busy_at == LONG_AGO

    def confirms(self, taken: Sequence[SentCanary]) -> bool | None:
        """Whether nothing else ran beside canaries; None if that is not known yet."""
        began, ended = taken[0].began, taken[-1].ended
        # What it said while they ran was of them.
        busy = self.busy_at > ended + METRICS_AGE_SECONDS
        if self.inflight or busy or self.answered_at >= began:
            return False
        return True if self.read_at > ended + WORKER_REPORT_AGE_SECONDS else None


@dataclass(frozen=True, slots=True)
class DueCanaries:
    """Canaries to be sent one after the other: is it a loaded one?"""

    steps: tuple[bool, ...]
    round: int = 0


class CanaryPlan:
    """Which canaries are due. Pure: times are arguments.

    ``done`` is the last round that is over. Begins with a round that has no number, for
    a baseline, unless ``measured``.
    """

    def __init__(self, done: int, measured: bool, now: float) -> None:
        self.done = done
        self._measured = measured
        self._unasked_at = now + UNASKED_EVERY_SECONDS
        self._not_before = now
        self._empty_since: float | None = None

    def due(self, now: float, use: EngineUse, wish: Wish) -> DueCanaries | None:
        """What is to be sent now."""
        if not use.empty:
            self._empty_since = None
            return None
        if self._empty_since is None:
            self._empty_since = now
        asked = wish.canary > self.done
        quiet = now - max(self._empty_since, use.answered_at)
        if quiet < (ASKED_EMPTY_SECONDS if asked else UNASKED_EMPTY_SECONDS):
            return None
        if now < self._not_before:
            return None
        if asked or not self._measured:
            return DueCanaries(ROUND, wish.canary if asked else 0)
        return DueCanaries((False,)) if now >= self._unasked_at else None

    def passed(self, due: DueCanaries, now: float) -> None:
        """They count."""
        self._unasked_at = now + UNASKED_EVERY_SECONDS
        self._measured = self._measured or due.steps == ROUND
        self.done = max(self.done, due.round)

    def failed(self, now: float) -> None:
        """They brought nothing; a while later others may."""
        self._not_before = now + FAILED_PAUSE_SECONDS


class Canaries:
    """Sends what the plan says to one engine; ``tell`` gets what counts."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        model: ModelSpec,
        plan: CanaryPlan,
        tell: Callable[[Sequence[SentCanary]], None],
    ) -> None:
        self.plan = plan
        self._target = (session, url, model)
        self._tell = tell
        self._due = DueCanaries(())
        self._task: asyncio.Task[list[SentCanary]] | None = None
        self._unconfirmed: Sequence[SentCanary] = ()
        self._refused = False

    def tick(self, now: float, use: EngineUse, wish: Wish) -> None:
        """Do what is due; never waits."""
        if self._task is not None:
            if self._task.done():
                self._collect(now)
        elif self._unconfirmed:
            self._confirm(now, use)
        elif not self._refused and (due := self.plan.due(now, use, wish)):
            self._due = due
            self._task = asyncio.create_task(self._send(due))

    def stop(self) -> None:
        """Send nothing more."""
        if self._task is not None:
            self._task.cancel()

    def _collect(self, now: float) -> None:
        task, self._task = self._task, None
        if task is None or task.cancelled():
            return
        self._unconfirmed = task.result()
        if not self._unconfirmed:
            self.plan.failed(now)

    def _confirm(self, now: float, use: EngineUse) -> None:
        counts = use.confirms(self._unconfirmed)
        if counts is None:
            return
        if counts:
            self._tell(self._unconfirmed)
            self.plan.passed(self._due, now)
        self._unconfirmed = ()

    async def _send(self, due: DueCanaries) -> list[SentCanary]:
        session, url, model = self._target
        try:
            return [
                await send_canary(session, url, model, loaded, due.round)
                for loaded in due.steps
            ]
        except EngineFault as fault:
            _log.warning("canary: %s", fault)
        except RequestFault as fault:
            self._refused = True
            _log.warning("%s gets no canaries, it refuses them: %s", url, fault)
        return []


async def first_round(
    session: aiohttp.ClientSession, url: str, model: ModelSpec
) -> list[SentCanary]:
    """A round on an engine that does not serve yet; [] if it takes too long or fails.

    Only then is it surely empty. What comes first warms it up and does not count.
    """
    try:
        async with asyncio.timeout(FIRST_ROUND_SECONDS):
            async with asyncio.timeout(WARM_UP_SECONDS):
                await send_canary(session, url, model, loaded=True)
            return [await send_canary(session, url, model, loaded) for loaded in ROUND]
    except (TimeoutError, EngineFault, RequestFault):
        return []


async def send_canary(
    session: aiohttp.ClientSession,
    url: str,
    model: ModelSpec,
    loaded: bool,
    number: int = 0,
) -> SentCanary:
    """Send a canary, or a crowd of them, and time it.

    Raises EngineFault, RequestFault.
    """
    crowd = min(CROWD, model.max_running) if loaded else 1
    began = time.monotonic()
    each = [asyncio.ensure_future(_one(session, url, model)) for _ in range(crowd)]
    try:
        seconds = await asyncio.gather(*each)
    finally:
        for one in each:
            one.cancel()
    return SentCanary(began, time.monotonic(), median(seconds), loaded, number)


async def _one(session: aiohttp.ClientSession, url: str, model: ModelSpec) -> float:
    text = f"{random.randrange(10**6)} {CANARY_TEXT}"
    body: dict[str, Any] = {"model": model.name}
    if model.kind is Kind.EMBEDDING:
        url, body["input"] = url + EMBEDDINGS_PATH, text
    else:
        # As many tokens each time, whatever it has to say.
        fixed = {"max_tokens": CANARY_TOKENS, "temperature": 0, "ignore_eos": True}
        url, body = url + COMPLETIONS_PATH, {**body, "prompt": text, **fixed}
    began = time.monotonic()
    try:
        await ask(session, url, body, LONGEST_CANARY_SECONDS)
    except TimeoutError:
        return LONGEST_CANARY_SECONDS
    return time.monotonic() - began
