"""One request against the engines of this host, until there is an answer.

After a fault of an engine the request is tried again, on another engine first. With no
usable engine left it goes back to its queue, where any host may take it. A fault of the
request goes to its caller at once.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
from celery.exceptions import Reject

from modelserver.adapters import engine_name, find_base
from modelserver.engine_client import ask
from modelserver.engine_protocol import EngineFault, RequestFault
from modelserver.errors import (
    DeadlineExceededError,
    EngineError,
    ModelUnavailableError,
    PoisonError,
    RequestError,
    UnknownPathError,
)
from modelserver.messaging.answers import answer, is_cut_off, tokens
from modelserver.messaging.requests import (
    InferenceRequest,
    build,
    with_defaults,
    with_model,
)
from modelserver.store.batch import CRASHES, HEDGE, SUSPECTS, TRIES
from modelserver.store.messages.streams import STREAM
from modelserver.tracing import Tracer, trace_of
from modelserver.values import EngineReport, Kind, ModelSpec
from workers.delivery.courier import Courier
from workers.delivery.server_clock import ServerClock
from workers.engines.engine_slot import EngineSlot
from workers.engines.fallbacks import Fallbacks
from workers.engines.probes import Probes
from workers.engines.roster import Roster
from workers.requests.attempt import Attempt
from workers.requests.coalescer import Coalescer
from workers.requests.crashes import CRASHES_TO_POISON, Crashes, suspects_at_once
from workers.requests.hedges import Hedges
from workers.requests.retries import Retries
from workers.requests.streams import Streams
from workers.requests.work import Work, find_deadline, find_sent

#: A request fails after so many attempts that were the fault of engines, on all hosts.
MOST_ATTEMPTS = 20
#: How long a suspect is kept from a worker that does not run suspects, in seconds: the
#: one that does is to take it.
LEADER_SECONDS = 0.5


class _CalledOff(EngineFault):
    """Control wants this engine's requests to run elsewhere; they did nothing wrong."""


class Executor:
    """Executes requests. Lives on the loop's thread."""

    def __init__(
        self,
        roster: Roster,
        fallbacks: Fallbacks,
        courier: Courier,
        session: aiohttp.ClientSession,
        specs: Mapping[str, ModelSpec],
        clock: ServerClock,
        tracer: Tracer | None = None,
    ) -> None:
        self.roster = roster
        self.fallbacks = fallbacks
        self.courier = courier
        self.session = session
        self.specs = specs
        self.clock = clock
        self.tracer = tracer
        self.crashes = Crashes(roster)
        self.coalescer = Coalescer()
        self.probes = Probes(session)
        self.retries = Retries(roster, courier, clock, self.probes)
        self.streams = Streams(courier.deliveries, session)
        self.hedges = Hedges(roster, self._attempt, self._note_lost)

    async def execute(self, task: str, args: Any, kwargs: Any, context: Any) -> Any:
        """The answer to one task.

        Raises errors of modelserver.errors for the caller, and Reject to give the
        message back where this host cannot answer it now.
        """
        work = self._work(task, args, kwargs, context)
        deadline = find_deadline(work.request, context)
        if deadline is None:
            return await self._in_turn(work)
        left = deadline - time.time()
        if left <= 0:
            # A timeout of 0 seconds would still let the request go out.
            raise DeadlineExceededError(too_late(work.model))
        try:
            async with asyncio.timeout(left):
                return await self._in_turn(work)
        except TimeoutError:
            raise DeadlineExceededError(too_late(work.model)) from None

    def _work(self, task: str, args: Any, kwargs: Any, context: Any) -> Work:
        request = build(task, args, kwargs)
        queue = (context.delivery_info or {}).get("routing_key")
        named = request.model or str(queue or "")
        base = ""
        if named not in self.specs:
            adapters = {name: spec.adapters for name, spec in self.specs.items()}
            base = find_base(named, adapters)
        asked = base or named
        model = self.fallbacks.model_for(asked)
        # Another model has no such adapter.
        adapter = named if base == model else ""
        request = with_model(request, model)
        if spec := self.specs.get(model):
            request = with_defaults(request, spec.sampling, spec.default_max_tokens)
        tag = str((context.properties or {}).get("delivery_tag", ""))
        is_filler, gateway = self.courier.is_filler(tag), context.get(STREAM)
        crashes = int(context.get(CRASHES) or 0)
        # What was told of a stream cannot be taken back.
        is_alone = bool(is_filler or gateway or crashes)
        work = Work(
            request=request,
            model=model,
            asked=asked,
            adapter=adapter,
            body={
                **request.body,
                "model": engine_name(model, adapter) if adapter else model,
            },
            tag=tag,
            is_filler=is_filler,
            task=context.id,
            crashes=crashes,
            at_once=suspects_at_once(int(context.get(SUSPECTS) or 1)),
            expires=context.expires,
            may_begin=getattr(context, "may_begin", None),
            sent_at=find_sent(context),
            gateway=str(gateway or ""),
            may_be_hedged=bool(context.get(HEDGE)) and not is_alone,
            size=self.courier.size_of(tag),
            trace=trace_of(context) if self.tracer else {},
        )
        self.retries.take_up(work, context.get(TRIES))
        return work

    async def _in_turn(self, work: Work) -> Any:
        """Suspects run a few at a time, all others at once."""
        self._refuse_poison(work)
        if work.gateway and work.tag:
            work.stream = await self.streams.open(
                work.tag, work.task, work.gateway, work.request
            )
        if not work.crashes:
            return await self._until_answered(work)
        self.courier.set_aside(work.tag, True)
        if not self.roster.leads(work.model):
            await asyncio.sleep(LEADER_SECONDS)
        async with self.crashes.lane(work.model, work.at_once):
            self.courier.set_aside(work.tag, False)
            if not self.roster.leads(work.model):
                self.courier.pass_on(work.tag)
                raise Reject("another worker runs suspects", requeue=True)
            return await self._until_answered(work)

    async def _until_answered(self, work: Work) -> Any:
        self.retries.begin(work)
        fault: EngineFault | None = None
        while work.attempts < MOST_ATTEMPTS:
            slot = await self._admit(work)
            began = time.monotonic()
            if self.tracer and work.is_fresh:
                told = (work.model, work.task, work.sent_at)
                self.tracer.wait(work.trace, *told)
            work.is_fresh = False
            try:
                value = await self.hedges.answer(slot, work)
                self.courier.answered(work.tag)
                return value
            except RequestFault as refusal:
                who, path = work.model_told, work.request.path
                if work.request.is_of_other_path and refusal.status == 404:
                    raise UnknownPathError(f"engines of {who} have no {path}") from None
                raise RequestError(f"{who} refused the request: {refusal}") from None
            except _CalledOff as error:
                fault = error
                work.attempts += 1
                work.called_off.append(slot.engine.id)
                continue  # At once: it has lost time enough.
            except EngineFault as error:
                fault = error
                work.attempts += 1
                work.lost += isinstance(error.__cause__, aiohttp.ClientConnectionError)
                self.retries.refuse_own_fault(work, fault)
                self.retries.keep(work)
                await self._note_fault(slot, fault, work, began)
            if work.attempts < MOST_ATTEMPTS:
                await self.retries.wait(work, fault)
        last = fault or "on another host"
        raise EngineError(
            f"{work.model} failed {work.attempts} times at a sound request, last: "
            f"{last}; see `modelserver status` and the engine's log"
        )

    async def _admit(self, work: Work) -> EngineSlot:
        """The engine for the next attempt; Reject gives the message back."""
        if work.tries is not None:
            await self.retries.before_attempt(work)
        avoid = self.retries.find_tried(work)
        if work.crashes:
            avoid = avoid + self.crashes.full(work.model, work.at_once)
        slot = await self.roster.admit(work.model, avoid, work.is_filler)
        if slot is None:
            down = self.fallbacks.find_down(work.asked)
            if down and down.then == "fail":
                raise ModelUnavailableError(down.text)
            text = f"no ready engine of {work.model} on this host"
            raise Reject(text, requeue=True)
        if work.is_fresh and work.is_unwanted:
            # It waited for an engine: Celery settles it when it comes again.
            raise Reject("expired or revoked before its start", requeue=True)
        return slot

    async def _attempt(self, slot: EngineSlot, work: Work) -> Any:
        """Raises EngineFault, RequestFault; _CalledOff once control says so."""
        timeout, began = asyncio.timeout(None), time.monotonic()
        urgent = self.roster.urgent
        if not work.is_filler:
            urgent.begin(work.model)
        try:
            async with timeout:
                slot.timeouts.add(timeout)
                slot.suspects += bool(work.crashes)
                try:
                    return await self._run_on(slot, work)
                finally:
                    slot.timeouts.discard(timeout)
                    slot.suspects -= bool(work.crashes)
        except TimeoutError:
            if not timeout.expired():
                raise
            engine = slot.engine.id
            raise _CalledOff(f"control took the requests off {engine}") from None
        finally:
            if not work.is_filler:
                urgent.end(work.model, began, time.monotonic())
            self.roster.release(work.model)

    async def _run_on(self, slot: EngineSlot, work: Work) -> Any:
        request = work.request
        _check_tokens(request, slot.engine)
        counted = Attempt(slot, self.courier.record, self.clock)
        with self._traced(slot, work), counted as attempt:
            attempt.is_telling = request.generates
            if not (work.attempts or work.wait_is_counted):
                work.wait_is_counted = True
                attempt.waited_seconds = work.find_wait(attempt.began, self.clock)
            try:
                response = await self._ask(slot, work)
                prompt, completion = tokens(response)
                if work.stream is not None:
                    prompt, completion = work.stream.sofar.own_tokens
                    attempt.is_telling = not work.stream.was_ended
                    attempt.first_token_seconds = work.find_wait(
                        work.stream.first_token_at, self.clock
                    )
                attempt.admit(prompt, completion or 0)
                lengths = slot.lengths[str(work.body.get("dimensions"))]
                value = answer(request, response, lengths)
            except EngineFault as fault:
                attempt.fault_outcome = self.retries.failed(
                    work, slot, fault, attempt.began
                )
                raise
            self.retries.answered(work)
            attempt.cut_off = is_cut_off(request, response)
            if request.raw:
                # Not the engine's own name for it, which may be a folder.
                value["model"] = work.name
                if work.model != work.asked:
                    value["fallback_for"] = work.asked
                value["engine"] = attempt.engine.id
                value["seconds"] = round(time.monotonic() - attempt.began, 4)
                if work.attempts:
                    value["attempts"] = work.attempts + 1
            return value

    def _traced(
        self, slot: EngineSlot, work: Work
    ) -> contextlib.AbstractContextManager[None]:
        if self.tracer is None:
            return contextlib.nullcontext()
        return self.tracer.attempt(work.trace, work.model, slot.engine.id, work.task)

    async def _ask(self, slot: EngineSlot, work: Work) -> dict[str, Any]:
        request, body = work.request, work.body
        url = slot.engine.url + request.path
        if work.stream is not None:
            ask_stream = self.streams.ask
            return await ask_stream(work.stream, url, request, body, work.name)
        if request.kind is Kind.COMPLETION:
            return await self._ask_for_text(url, request, body)
        if request.raw:
            return await ask(self.session, url, body)
        # Base64 is cheaper to read and to store than decimal numbers.
        body = {"encoding_format": "base64", **body}
        if isinstance(body["input"], str):
            return await self.coalescer.embed(
                slot.engine.id, body, lambda body: ask(self.session, url, body)
            )
        return await ask(self.session, url, body)

    async def _ask_for_text(
        self, url: str, request: InferenceRequest, body: dict[str, Any]
    ) -> dict[str, Any]:
        try:
            return await ask(self.session, url, body)
        except RequestFault:
            if not request.max_tokens_is_default:
                raise
        # A long prompt may leave no room for so many: then as many as engines take.
        rest = {name: value for name, value in body.items() if name != "max_tokens"}
        return await ask(self.session, url, rest)

    # Engines that fail or die.

    async def _note_fault(
        self, slot: EngineSlot, fault: EngineFault, work: Work, began: float
    ) -> None:
        cause = fault.__cause__
        if not isinstance(cause, aiohttp.ClientConnectionError):
            self.retries.note_fault(work, slot, began)
            return
        slot.suspect(time.monotonic(), began)
        if isinstance(cause, aiohttp.ClientConnectorError):
            return  # The engine was dead before this request came.
        suspect = bool(work.crashes)
        death = await self.crashes.find_death(slot, work.tag, suspect)
        if death is None:
            return
        together = len(death.suspects if suspect else death.others)
        # Of several suspects one did it, and nobody knows which.
        if not suspect or together == 1:
            work.crashes += 1
        self.courier.amend(work.tag, {CRASHES: work.crashes, SUSPECTS: together})
        self._refuse_poison(work)
        # From now on it runs as a suspect, here or wherever it is taken next.
        raise Reject("its engine died", requeue=True)

    def _note_lost(
        self, slot: EngineSlot, fault: EngineFault, work: Work, began: float
    ) -> None:
        """An engine failed at a request that another one has as well."""
        if isinstance(fault.__cause__, aiohttp.ClientConnectionError):
            slot.suspect(time.monotonic(), began)
        elif not isinstance(fault, _CalledOff):
            self.retries.note_fault(work, slot, began)

    def _refuse_poison(self, work: Work) -> None:
        if work.crashes < CRASHES_TO_POISON:
            return
        reason = f"{work.crashes} engines of {work.model} died with it on them"
        letter = {"reason": reason, "at": self.clock.now()}
        self.courier.bury(work.tag, work.task, letter)
        raise PoisonError(
            f"request {work.task} was set aside: {reason}; look at it with "
            f"`modelserver dead`, send it again with `modelserver dead --resubmit "
            f"{work.task}`"
        )


def _check_tokens(request: InferenceRequest, engine: EngineReport) -> None:
    """Refuse token ids that the model does not know: they would end SGLang."""
    highest = request.highest_token
    if highest is None or highest < engine.vocabulary:
        return
    if not engine.vocabulary:
        raise RequestFault(
            "its vocabulary is unknown, so token ids cannot be checked; send text"
        )
    raise RequestFault(
        f"the token id {highest} is beyond its vocabulary of {engine.vocabulary}"
    )


def too_late(model: str) -> str:
    """What a caller reads whose deadline passed."""
    return (
        f"no answer from {model} before the request's deadline; allow more time than "
        "it was given, or look at the model with `modelserver status`"
    )
