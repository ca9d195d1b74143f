"""One request against the engines of this host, until there is an answer.

A fault of the engine is tried again, on another engine first; with no usable engine
left the request goes back to its queue, where any host may take it. A fault of the
request goes to its caller at once. Every attempt leaves a sample.
"""

import asyncio
import random
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
from celery.exceptions import Reject

from modelserver.api import DEADLINE
from modelserver.client import EngineFault, RequestFault, ask
from modelserver.errors import DeadlineExceededError, EngineError, RequestError
from modelserver.model import ModelSpec, Outcome, Sample
from modelserver.requests import InferenceRequest, answer, build, tokens
from workers.courier import Courier
from workers.roster import Roster, Slot

#: Attempts before a request is given up as failed by engines.
ATTEMPTS = 20
#: Waits between attempts, in seconds: the first, and the longest.
BACKOFF_SECONDS = (0.1, 10.0)


class Executor:
    """Executes requests. Lives on the loop's thread."""

    def __init__(
        self,
        roster: Roster,
        courier: Courier,
        session: aiohttp.ClientSession,
        specs: Mapping[str, ModelSpec],
        headers: Mapping[str, Mapping[str, str]],
    ) -> None:
        self.roster = roster
        self.courier = courier
        self.session = session
        self.specs = specs
        self.headers = headers
        #: Server's clock minus the monotonic clock, in seconds.
        self.offset = 0.0

    async def execute(self, task: str, args: Any, kwargs: Any, context: Any) -> Any:
        """The answer to one task, or an error of modelserver.errors.

        Raises Reject to give the message back where this host cannot help now.
        """
        request = build(task, args, kwargs)
        info = context.delivery_info or {}
        model = request.model or str(info.get("routing_key") or "")
        deadline = _deadline(request, context)
        if deadline is None:
            return await self._until_answered(model, request)
        try:
            async with asyncio.timeout(deadline - time.time()):
                return await self._until_answered(model, request)
        except TimeoutError:
            raise DeadlineExceededError(
                f"no answer from {model} before the request's deadline; allow more "
                "than it was given, or look at the model with `modelserver status`"
            ) from None

    async def _until_answered(self, model: str, request: InferenceRequest) -> Any:
        spec = self.specs.get(model)
        body = request.body_for(model, spec.sampling if spec else {})
        tried: list[str] = []
        for attempt in range(ATTEMPTS):
            slot = self.roster.choose(model, tried)
            if slot is None:
                raise Reject(f"no ready engine of {model} on this host", requeue=True)
            try:
                return await self._attempt(slot, request, body)
            except RequestFault as fault:
                raise RequestError(f"{model} refused the request: {fault}") from None
            except EngineFault as fault:
                last = fault
                tried.append(slot.engine.id)
            await asyncio.sleep(_backoff(attempt, last.retry_after))
        raise EngineError(
            f"{model} failed {ATTEMPTS} times at a sound request, last: {last}; see "
            "`modelserver status` and the engine's log"
        )

    async def _attempt(
        self, slot: Slot, request: InferenceRequest, body: dict[str, Any]
    ) -> Any:
        engine = slot.engine
        began = time.monotonic()
        inflight, admitted = slot.inflight, slot.admitted
        number = slot.begin(began)
        outcome, used = Outcome.CANCELLED, (0, 0)
        headers = self.headers.get(engine.id)
        try:
            response = await ask(
                self.session, engine.url + request.path, body, headers=headers
            )
            prompt, completion = tokens(response)
            used = (prompt, completion or 0)
            slot.admitted += prompt
            value = answer(request, response)
            outcome = Outcome.OK
            if request.raw:
                value["engine"] = engine.id
                value["seconds"] = round(time.monotonic() - began, 4)
            return value
        except RequestFault:
            outcome = Outcome.REQUEST_FAULT
            raise
        except EngineFault as fault:
            outcome = Outcome.ENGINE_FAULT
            if isinstance(fault.__cause__, aiohttp.ClientConnectionError):
                slot.suspect(time.monotonic())
            raise
        finally:
            now = time.monotonic()
            answered = outcome in (Outcome.OK, Outcome.REQUEST_FAULT)
            slot.end(number, now, well=answered)
            self.courier.record(
                Sample(
                    engine=engine.id,
                    incarnation=engine.incarnation,
                    ended_at=now + self.offset,
                    seconds=now - began,
                    prompt_tokens=used[0],
                    completion_tokens=used[1],
                    inflight_start=inflight,
                    inflight_end=slot.inflight,
                    prompt_admitted=slot.admitted - admitted,
                    outcome=outcome,
                )
            )


def _deadline(request: InferenceRequest, context: Any) -> float | None:
    """When the answer is due, seconds since the epoch by this host's clock."""
    at = context.get(DEADLINE)
    if at is not None:
        return float(at)
    return time.time() + request.deadline if request.deadline else None


def _backoff(attempt: int, asked: float) -> float:
    first, most = BACKOFF_SECONDS
    # Jitter, or all requests of a broken engine come back at the same moment.
    wait = min(most, first * 2.0**attempt) * random.uniform(0.5, 1.0)
    return max(asked, wait)
