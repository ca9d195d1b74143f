"""One request against the engines of this host, until there is an answer.

A fault of the engine is tried again, on another engine first and within a budget; with
no usable engine left the request goes back to its queue, where any host may take it. A
fault of the request goes to its caller at once.
"""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import aiohttp
from celery.exceptions import Reject
from celery.worker.state import revoked

from modelserver.engine_client import EngineFault, RequestFault, ask
from modelserver.errors import (
    DeadlineExceededError,
    EngineError,
    ModelUnavailableError,
    PoisonError,
    RequestError,
)
from modelserver.messaging.requests import (
    InferenceRequest,
    answer,
    build,
    tokens,
    with_model,
)
from modelserver.store.batch import CRASHES, DEADLINE
from modelserver.values import Kind, ModelSpec
from workers.attempt import Attempt
from workers.budget import RetryBudget
from workers.coalescer import Coalescer
from workers.courier import Courier
from workers.crashes import CRASHES_TO_POISON, Crashes
from workers.fallbacks import Detours
from workers.roster import Roster, Slot

#: Attempts before a request is given up as failed by engines.
ATTEMPTS = 20
#: Waits between attempts, in seconds: the first, and the longest.
BACKOFF_SECONDS = (0.1, 10.0)


class _CalledOff(EngineFault):
    """Control wants this engine's requests elsewhere: no fault of theirs."""


@dataclass(slots=True)
class _Work:
    """One request under way: what its message says, and what has been tried."""

    request: InferenceRequest
    model: str
    asked: str
    body: dict[str, Any]
    tag: str
    task: str
    crashes: int
    expires: str | None


class Executor:
    """Executes requests. Lives on the loop's thread."""

    def __init__(
        self,
        roster: Roster,
        detours: Detours,
        courier: Courier,
        session: aiohttp.ClientSession,
        specs: Mapping[str, ModelSpec],
    ) -> None:
        self.roster = roster
        self.detours = detours
        self.courier = courier
        self.session = session
        self.specs = specs
        self.crashes = Crashes(roster)
        self.coalescer = Coalescer()
        self.budgets: defaultdict[str, RetryBudget] = defaultdict(RetryBudget)
        #: Server's clock minus the monotonic clock, in seconds.
        self.offset = 0.0

    async def execute(self, task: str, args: Any, kwargs: Any, context: Any) -> Any:
        """The answer to one task, or an error of modelserver.errors.

        Raises Reject to give the message back where this host cannot help now.
        """
        work = self._work(task, args, kwargs, context)
        deadline = _deadline(work.request, context)
        if deadline is None:
            return await self._in_turn(work)
        left = deadline - time.time()
        if left <= 0:
            # A timeout that is over would still let the request go out.
            raise DeadlineExceededError(too_late(work.model))
        try:
            async with asyncio.timeout(left):
                return await self._in_turn(work)
        except TimeoutError:
            raise DeadlineExceededError(too_late(work.model)) from None

    def _work(self, task: str, args: Any, kwargs: Any, context: Any) -> _Work:
        request = build(task, args, kwargs)
        queue = (context.delivery_info or {}).get("routing_key")
        asked = request.model or str(queue or "")
        model = self.detours.serving(asked)
        spec = self.specs.get(model)
        return _Work(
            request=with_model(request, model),
            model=model,
            asked=asked,
            body=request.body_for(model, spec.sampling if spec else {}),
            tag=str((context.properties or {}).get("delivery_tag", "")),
            task=context.id,
            crashes=int(context.get(CRASHES) or 0),
            expires=context.expires,
        )

    async def _in_turn(self, work: _Work) -> Any:
        """Suspected requests run one at a time; the others at will."""
        self._refuse_poison(work)
        if not work.crashes:
            return await self._until_answered(work)
        async with self.crashes.single_file(work.model):
            return await self._until_answered(work)

    async def _until_answered(self, work: _Work) -> Any:
        budget = self.budgets[work.model]
        budget.attempted()
        tried: list[str] = []
        for attempt in range(ATTEMPTS):
            slot = await self.roster.admit(work.model, tried)
            if slot is None:
                down = self.detours.of(work.asked)
                if down and down.then == "fail":
                    raise ModelUnavailableError(down.text)
                text = f"no ready engine of {work.model} on this host"
                raise Reject(text, requeue=True)
            if attempt == 0 and _unwanted(work):
                # It waited in line: Celery settles it when it is received again.
                raise Reject("expired or revoked before its start", requeue=True)
            try:
                value = await self._attempt(slot, work)
                self.courier.answered(work.tag)
                return value
            except RequestFault as fault:
                raise RequestError(f"{_told(work)} refused the request: {fault}") from (
                    None
                )
            except _CalledOff as fault:
                last: EngineFault = fault
                tried.append(slot.engine.id)
                continue  # At once: it has waited enough.
            except EngineFault as fault:
                last = fault
                tried.append(slot.engine.id)
                await self._note_fault(slot, fault, work)
            wait = max(last.retry_after, _backoff(attempt))
            await asyncio.sleep(max(wait, budget.take(time.monotonic())))
        raise EngineError(
            f"{work.model} failed {ATTEMPTS} times at a sound request, last: {last}; "
            "see `modelserver status` and the engine's log"
        )

    async def _attempt(self, slot: Slot, work: _Work) -> Any:
        """Raises EngineFault, RequestFault; _CalledOff once control says so."""
        leash = asyncio.timeout(None)
        try:
            async with leash:
                slot.leashes.add(leash)
                try:
                    return await self._on(slot, work)
                finally:
                    slot.leashes.discard(leash)
        except TimeoutError:
            if not leash.expired():
                raise
            engine = slot.engine.id
            raise _CalledOff(f"control took the requests off {engine}") from None
        finally:
            self.roster.release(work.model)

    async def _on(self, slot: Slot, work: _Work) -> Any:
        request = work.request
        with Attempt(slot, self.courier.record, self.offset) as attempt:
            response = await self._ask(slot, request, work.body)
            prompt, completion = tokens(response)
            attempt.admit(prompt, completion or 0)
            value = answer(request, response)
            if request.raw:
                # Not the engine's own name for it, which may be a folder.
                value["model"] = work.model
                if work.model != work.asked:
                    value["fallback_for"] = work.asked
                value["engine"] = attempt.engine.id
                value["seconds"] = round(time.monotonic() - attempt.began, 4)
            return value

    async def _ask(
        self, slot: Slot, request: InferenceRequest, body: dict[str, Any]
    ) -> dict[str, Any]:
        url = slot.engine.url + request.path
        if request.kind is not Kind.EMBEDDING or request.raw:
            return await ask(self.session, url, body)
        # Base64 is cheaper to read and to store than decimal numbers.
        body = {"encoding_format": "base64", **body}
        if isinstance(body["input"], str):
            return await self.coalescer.embed(
                slot.engine.id, body, lambda body: ask(self.session, url, body)
            )
        return await ask(self.session, url, body)

    # Engines that fail, or die.

    async def _note_fault(self, slot: Slot, fault: EngineFault, work: _Work) -> None:
        cause = fault.__cause__
        if not isinstance(cause, aiohttp.ClientConnectionError):
            self.roster.note_fault(slot)
            return
        slot.suspect(time.monotonic())
        if isinstance(cause, aiohttp.ClientConnectorError):
            return  # It was dead before this request came.
        if await self.crashes.confirmed(slot):
            work.crashes += 1
            self.courier.amend(work.tag, {CRASHES: work.crashes})
            self._refuse_poison(work)
            # From now on single file, here or wherever it is taken next.
            raise Reject("its engine died", requeue=True)

    def _refuse_poison(self, work: _Work) -> None:
        if work.crashes < CRASHES_TO_POISON:
            return
        reason = f"{work.crashes} engines of {work.model} died with it on them"
        letter = {"reason": reason, "at": time.monotonic() + self.offset}
        self.courier.bury(work.tag, work.task, letter)
        raise PoisonError(
            f"request {work.task} was set aside: {reason}; look at it with "
            f"`modelserver dead`, send it again with `modelserver dead --resubmit "
            f"{work.task}`"
        )


def _told(work: _Work) -> str:
    if work.model == work.asked:
        return work.model
    return f"{work.model}, the fallback of {work.asked}, which is down,"


def too_late(model: str) -> str:
    """What a caller reads whose deadline passed."""
    return (
        f"no answer from {model} before the request's deadline; allow more time than "
        "it was given, or look at the model with `modelserver status`"
    )


def _deadline(request: InferenceRequest, context: Any) -> float | None:
    """When the answer is due, seconds since the epoch by this host's clock."""
    at = context.get(DEADLINE)
    if at is not None:
        return float(at)
    return time.time() + request.deadline if request.deadline else None


def _unwanted(work: _Work) -> bool:
    if work.task in revoked:
        return True
    if work.expires is None:
        return False
    return datetime.fromisoformat(work.expires).timestamp() < time.time()


def _backoff(attempt: int) -> float:
    first, most = BACKOFF_SECONDS
    # Jitter, or all requests of a broken engine come back at the same moment.
    return min(most, first * 2.0**attempt) * random.uniform(0.5, 1.0)
