"""Requests of the gateway on their way through the queue: sent, awaited, called off."""

import asyncio
import hashlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from celery import Celery
from celery.result import AsyncResult
from redis.exceptions import RedisError

from modelserver.gateway.bodies import Asked, TaskCall
from modelserver.gateway.direct import DirectWay
from modelserver.gateway.headers import Caller
from modelserver.gateway.inbox import Arrivals, Inbox
from modelserver.gateway.patience import end, patiently
from modelserver.messaging.sending import BackgroundSender
from modelserver.store.batch import HEDGE, ONCE_SECONDS, SUBMITTER
from modelserver.store.messages.streams import STREAM

#: By the ids of requests that a client gave a key for, so that a repeat finds them.
_IDS = uuid.UUID("5e5aa3d1-0f0e-4a43-9d3d-6f3f4f0b9f54")
#: The gateway itself may send a request again within so many seconds, with a margin.
AGAIN_SECONDS = 60


def identified(asked: Asked, caller: Caller) -> Asked:
    """The same with ids by which a repeat finds the first one's answers."""
    if not caller.idempotency_key:
        return asked
    calls = []
    for place, call in enumerate(asked.calls):
        # Something else with the same key is no repeat, and has another answer.
        asks = [call.task, call.payload, sorted(call.arguments.items())]
        with suppress(orjson.JSONEncodeError):  # Too deep: refused as it is sent.
            content = hashlib.sha256(orjson.dumps(asks)).hexdigest()
            name = f"{caller.name}\n{caller.idempotency_key}\n{place}\n{content}"
            call = replace(call, id=str(uuid.uuid5(_IDS, name)))
        calls.append(call)
    return replace(asked, calls=tuple(calls))


@dataclass(slots=True)
class Told:
    """What has come of a stream: parts of one of its calls."""

    #: The call's place in the body.
    place: int
    parts: list[dict[str, Any]] = field(default_factory=list)
    #: The whole answer's body, once it is there.
    body: dict[str, Any] | None = None


class Calls:
    """Sends what bodies ask for to the fleet."""

    def __init__(
        self, app: Celery, inbox: Inbox, direct: DirectWay | None = None
    ) -> None:
        self._app = app
        self._inbox = inbox
        #: Where requests need not go through Celery.
        self._direct = direct
        self._tasks = {task.name: task for task in app.modelserver_tasks}

    async def answer(self, asked: Asked, caller: Caller) -> list[dict[str, Any]]:
        """The engines' bodies, in order. Cancelled, it calls the requests off.

        Raises errors of modelserver.errors.
        """
        answers = [
            asyncio.create_task(self._answer(call, caller)) for call in asked.calls
        ]
        try:
            return list(await asyncio.gather(*answers))
        finally:
            await end(answers)

    async def _answer(self, call: TaskCall, caller: Caller) -> dict[str, Any]:
        options = self._options(call, caller)
        async with self._sent(call, caller, options) as result:
            return dict(await result)

    def _sent(
        self, call: TaskCall, caller: Caller, options: dict[str, Any]
    ) -> AbstractAsyncContextManager[Awaitable[Any]]:
        """A request that was accepted; left before its end it is called off."""
        arguments = dict(call.arguments)
        if caller.deadline is not None:
            arguments["deadline"] = caller.deadline
        if self._direct is None:
            return self._sent_by_celery(call, arguments, options, caller)
        return self._direct.sent(call, arguments, options, caller)

    @asynccontextmanager
    async def _sent_by_celery(
        self,
        call: TaskCall,
        arguments: dict[str, Any],
        options: dict[str, Any],
        caller: Caller,
    ) -> AsyncIterator[AsyncResult]:
        task = self._tasks[call.task]
        sender: BackgroundSender = self._app.modelserver_sender
        sending: Future[Any] = Future()

        async def send() -> AsyncResult:
            nonlocal sending
            sending = sender.send(
                lambda producer: task.apply_async(
                    (call.payload,), arguments, producer=producer, **options
                )
            )
            return await asyncio.wrap_future(sending)

        try:
            yield await patiently(send)
        except (asyncio.CancelledError, GeneratorExit):
            if not caller.idempotency_key:
                sending.add_done_callback(sender.revoke)
            raise

    def _options(self, call: TaskCall, caller: Caller) -> dict[str, Any]:
        # Sent twice, where Redis did not say that it had it, it is the same request.
        options: dict[str, Any] = {
            "priority": caller.priority,
            "headers": {ONCE_SECONDS: AGAIN_SECONDS},
            "task_id": call.id or str(uuid.uuid4()),
        }
        if caller.name:
            options["headers"][SUBMITTER] = caller.name
        if caller.may_be_hedged:
            options["headers"][HEDGE] = True
        if call.id:
            # No longer than the answer is kept: without both nobody would answer.
            once_seconds = int(self._app.conf.result_expires)
            options["headers"][ONCE_SECONDS] = once_seconds
        return options

    async def stream(self, asked: Asked, caller: Caller) -> AsyncGenerator[Told]:
        """What comes of all calls, as it comes; each call's answer last.

        Closed before its end, it calls the requests off. Raises as ``answer``.
        """
        told: asyncio.Queue[Told | Exception] = asyncio.Queue()
        followers = [
            asyncio.create_task(self._follow(place, call, caller, told))
            for place, call in enumerate(asked.calls)
        ]
        left = len(followers)
        try:
            while left:
                news = await told.get()
                if isinstance(news, Exception):
                    raise news
                yield news
                left -= news.body is not None
        finally:
            await end(followers)

    async def _follow(
        self,
        place: int,
        call: TaskCall,
        caller: Caller,
        told: "asyncio.Queue[Told | Exception]",
    ) -> None:
        try:
            async for news in self._news(place, call, caller):
                told.put_nowait(news)
        except Exception as error:
            told.put_nowait(error)

    async def _news(
        self, place: int, call: TaskCall, caller: Caller
    ) -> AsyncIterator[Told]:
        options = self._options(call, caller)
        task_id = options["task_id"]
        options["headers"][STREAM] = self._inbox.gateway
        arrivals = self._inbox.expect(task_id)
        try:
            async with self._sent(call, caller, options) as result:
                async for news in until_answered(place, arrivals, result):
                    yield news
        finally:
            self._inbox.forget(task_id, arrivals)


async def until_answered(
    place: int, arrivals: Arrivals, result: Awaitable[Any]
) -> AsyncIterator[Told]:
    """What comes of a call, the answer last. Raises as the result."""
    answer = asyncio.ensure_future(_await(result))
    parts: asyncio.Task[list[dict[str, Any]]] | None = None
    try:
        while not answer.done():
            parts = parts or asyncio.create_task(arrivals.next())
            await asyncio.wait({answer, parts}, return_when=asyncio.FIRST_COMPLETED)
            if parts.done():
                found = _parts(parts)
                parts = None
                if found:
                    yield Told(place, found)
        body = dict(answer.result())
        found = []
        if parts is not None:
            parts.cancel()
            await asyncio.wait({parts})
            # One that is just asking Redis may miss it, in Python 3.11.
            found = [] if parts.cancelled() else _parts(parts)
        rest = await patiently(arrivals.rest)
        yield Told(place, found + rest, body)
    finally:
        await end([answer, *([parts] if parts is not None else [])])


def _parts(done: "asyncio.Task[list[dict[str, Any]]]") -> list[dict[str, Any]]:
    """What was read; nothing while Redis is away, for it is read again."""
    with suppress(RedisError, OSError):
        return done.result()
    return []


async def _await(result: Awaitable[Any]) -> Any:
    return await result
