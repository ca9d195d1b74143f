"""Canaries: small requests to an empty engine that tell how fast it is.

One counts only if the engine was empty before, during and after it. Here they are sent
and timed; control judges who is slow.
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

from modelserver.engine_client import ask
from modelserver.engine_protocol import (
    COMPLETIONS_PATH,
    EMBEDDINGS_PATH,
    EngineFault,
    RequestFault,
)
from modelserver.measured import EngineLoad
from modelserver.values import Kind, ModelSpec, Wish

_log = logging.getLogger(__name__)

#: About 60 tokens. A random number before it makes it new to the engine's cache.
CANARY_TEXT = """\
The old lighthouse stood at the end of a long road. Every evening its keeper climbed \
the stairs, cleaned the lamp and wrote into a book which ships had passed, how the \
wind blew and what the sea looked like. One night in winter he wrote nothing, for"""
#: Tokens that a canary asks for.
CANARY_ANSWER_TOKENS = 32
#: A time before all others.
LONG_AGO = float("-inf")
#: A loaded canary is this many requests at once.
CROWD = 8
#: The canaries of a round, each with whether it is a loaded one.
ROUND = (False, False, False, True)
#: Seconds that a canary takes at most; one without an answer by then counts as this.
LONGEST_CANARY_SECONDS = 30.0
#: Seconds that the engine must have been empty before canaries that control asks for: a
#: worker's last request may still be on its way.
ASKED_EMPTY_SECONDS = 1.5
#: Seconds that the engine must have been empty before canaries that nobody asks for.
UNASKED_EMPTY_SECONDS = 5.0
#: Age of a worker's report at most, in seconds.
WORKER_REPORT_AGE_SECONDS = 1.0
#: Age of an engine's metrics at most, in seconds.
METRICS_AGE_SECONDS = 0.5
#: Seconds between two canaries that an empty engine gets unasked.
UNASKED_EVERY_SECONDS = 60.0
#: Seconds without canaries after some that failed.
FAILED_PAUSE_SECONDS = 5.0
#: Seconds that the round before an engine serves may take, with the warm-up.
FIRST_ROUND_SECONDS = 10.0
#: Seconds that the warm-up may take; an engine that is slower has its round later.
WARM_UP_SECONDS = 2.5


@dataclass(frozen=True, slots=True)
class SentCanary:
    """One canary that was sent. Times are monotonic."""

    began: float
    ended: float
    seconds: float
    #: Whether it was several requests at once.
    loaded: bool
    #: The round that control asked for, 0 for none.
    round: int = 0


@dataclass(frozen=True, slots=True)
class EngineUse:
    """What is on an engine. Times are monotonic."""

    #: Requests of the workers.
    inflight: int
    #: When a request of the workers last went well.
    answered_at: float
    #: When all of this was known.
    read_at: float
    #: When the engine itself last had requests, ``LONG_AGO`` if it surely has none.
    busy_at: float = LONG_AGO

    @classmethod
    def of(cls, load: EngineLoad | None, read_at: float, busy_at: float) -> "EngineUse":
        """From what workers report of the engine, None where none does."""
        if load is None:
            return cls(0, LONG_AGO, read_at, busy_at)
        return cls(load.inflight, read_at - load.idle_seconds, read_at, busy_at)

    @property
    def empty(self) -> bool:
        """Whether no request is known to be on it."""
        return not self.inflight and self.busy_at == LONG_AGO

    def confirms(self, sent: Sequence[SentCanary]) -> bool | None:
        """Whether only the canaries ran on it; None while that is not known yet."""
        began, ended = sent[0].began, sent[-1].ended
        # What it had while they ran was the canaries.
        busy = self.busy_at > ended + METRICS_AGE_SECONDS
        if self.inflight or busy or self.answered_at >= began:
            return False
        return True if self.read_at > ended + WORKER_REPORT_AGE_SECONDS else None


@dataclass(frozen=True, slots=True)
class DueCanaries:
    """Canaries to be sent one after the other."""

    #: For each, whether it is a loaded one.
    steps: tuple[bool, ...]
    #: The round that control asked for, 0 for none.
    round: int = 0


class CanaryPlan:
    """Which canaries are due. Pure: times are arguments.

    ``done`` is the last round that is over. The first round has no number: it is for a
    baseline, which an engine that is ``measured`` has already.
    """

    def __init__(self, done: int, measured: bool, now: float) -> None:
        self.done = done
        self._measured = measured
        self._unasked_at = now + UNASKED_EVERY_SECONDS
        self._not_before = now
        self._empty_since: float | None = None

    def find_due(self, now: float, use: EngineUse, wish: Wish) -> DueCanaries | None:
        """What is to be sent now, None for nothing."""
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
        """Note that they counted."""
        self._unasked_at = now + UNASKED_EVERY_SECONDS
        self._measured = self._measured or due.steps == ROUND
        self.done = max(self.done, due.round)

    def failed(self, now: float) -> None:
        """Note that they failed; after a pause others may be sent."""
        self._not_before = now + FAILED_PAUSE_SECONDS


class Canaries:
    """Sends to one engine what the plan says, and gives ``tell`` what counts."""

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
        elif not self._refused and (due := self.plan.find_due(now, use, wish)):
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
            _log.warning("%s refuses canaries and gets no more: %s", url, fault)
        return []


async def first_round(
    session: aiohttp.ClientSession, url: str, model: ModelSpec
) -> list[SentCanary]:
    """A round before an engine serves; [] if it takes too long or fails.

    Only then is it surely empty. A warm-up comes first and does not count.
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
    crowd = min(CROWD, model.max_running or CROWD) if loaded else 1
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
        # The same number of tokens each time, whatever it would say.
        fixed = {
            "max_tokens": CANARY_ANSWER_TOKENS,
            "temperature": 0,
            "ignore_eos": True,
        }
        url, body = url + COMPLETIONS_PATH, {**body, "prompt": text, **fixed}
    began = time.monotonic()
    try:
        await ask(session, url, body, LONGEST_CANARY_SECONDS)
    except TimeoutError:
        return LONGEST_CANARY_SECONDS
    return time.monotonic() - began
