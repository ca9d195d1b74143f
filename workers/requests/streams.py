"""Answers that are told in parts while they are generated.

Parts are gathered for a moment and told many in one round trip. Where an engine dies in
the middle of an answer, the next one goes on from the text that is there, and so does
another worker: the parts that were told are kept with the request.
"""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
from celery.exceptions import Reject
from celery.utils.log import get_logger
from redis.exceptions import RedisError

from modelserver.engine_client import ask_in_parts
from modelserver.engine_protocol import RESPONSES_PATH, EngineFault, RequestFault
from modelserver.errors import EngineError, RequestError
from modelserver.messaging.requests import InferenceRequest
from modelserver.messaging.response_parts import ResponseAssembly
from modelserver.messaging.stream_parts import Assembly, says_broken_off
from modelserver.messaging.wire import CHAT
from modelserver.store.messages.delivery import Deliveries
from modelserver.store.messages.streams import NOT_OURS, Addition, add_parts, read_parts
from modelserver.store.server.away_log import AwayLog

logger = get_logger(__name__)

#: Parts wait for others so long, in seconds.
GATHER_SECONDS = 0.03
#: Most additions in one round trip.
MOST_ADDITIONS = 256
#: Wait before another try while Redis is away, in seconds.
AWAY_SECONDS = 0.5
#: A stream that nobody has listened to for so many seconds is ended: its gateway died.
UNHEARD_SECONDS = 10.0


@dataclass(slots=True)
class Stream:
    """One answer that is told in parts, by whichever worker."""

    tag: str
    task: str
    gateway: str
    sofar: Assembly | ResponseAssembly
    #: Additions that were told, by whichever worker.
    place: int = 0
    #: Parts that are not told yet.
    parts: list[dict[str, Any]] = field(default_factory=list)
    #: When an engine's first token was there, by the monotonic clock; None where
    #: another worker had told some before.
    first_token_at: float | None = None
    #: Whether it had come to its end before this worker got it.
    was_ended: bool = False
    #: Whether another delivery tells this answer.
    is_fenced: bool = False
    #: Since when nobody listens, by the monotonic clock; None while somebody does.
    unheard_since: float | None = None
    #: Set while nothing is left to tell.
    told: asyncio.Event = field(default_factory=asyncio.Event)


class Streams:
    """All streams of one worker. Lives on the loop's thread."""

    def __init__(self, deliveries: Deliveries, session: aiohttp.ClientSession) -> None:
        self.deliveries = deliveries
        self.session = session
        self._waiting: deque[Stream] = deque()
        self._work = asyncio.Event()
        self._away_log = AwayLog(logger, "telling parts of answers")

    async def open(
        self, tag: str, task: str, gateway: str, request: InferenceRequest
    ) -> Stream:
        """Go on where the parts that were told end."""
        stream = Stream(tag, task, gateway, _nothing_yet(request))
        additions = await self._told(task)
        for parts in additions:
            for part in parts:
                stream.sofar.add(part)
        stream.place = len(additions)
        stream.told.set()
        return stream

    async def _told(self, task: str) -> list[list[dict[str, Any]]]:
        client, keys = self.deliveries.client, self.deliveries.keys
        while True:
            try:
                return await read_parts(client, keys, task)
            except (RedisError, OSError):
                await asyncio.sleep(AWAY_SECONDS)

    async def ask(
        self,
        stream: Stream,
        url: str,
        request: InferenceRequest,
        body: dict[str, Any],
        model: str,
    ) -> dict[str, Any]:
        """Have an engine answer, or go on; the whole answer.

        Raises EngineFault, RequestFault, and EngineError where none can go on.
        """
        goes_on = stream.sofar.is_begun
        if goes_on and stream.sofar.is_ended:
            stream.was_ended = True
            return await self._whole(stream, model)
        if goes_on:
            body = _rest(stream, request, body)
        try:
            await self._tell_parts(stream, url, body, goes_on)
        except RequestFault as refusal:
            if not goes_on:
                raise
            # It is our continuation that it refuses, not the request.
            raise EngineFault(f"{url} refused to go on: {refusal}") from refusal
        except (LookupError, TypeError, AttributeError) as error:
            raise EngineFault(
                f"{url}: a part of the wrong shape ({error!r})", way="wrong shape"
            ) from error
        return await self._whole(stream, model)

    async def _tell_parts(
        self, stream: Stream, url: str, body: dict[str, Any], goes_on: bool
    ) -> None:
        asked = {**body, **stream.sofar.IN_PARTS}
        async for chunk in ask_in_parts(self.session, url, asked):
            if reason := says_broken_off(chunk):
                text = f'a generation that ended by "{reason}"'
                raise EngineFault(text, way="broken off")
            for part in stream.sofar.take(chunk, goes_on):
                self._tell(stream, part)
            if stream.first_token_at is None and not goes_on and stream.sofar.parts:
                stream.first_token_at = time.monotonic()
            _check_wanted(stream)

    async def _whole(self, stream: Stream, model: str) -> dict[str, Any]:
        await stream.told.wait()
        _check_wanted(stream)
        return stream.sofar.body(model)

    def _tell(self, stream: Stream, part: dict[str, Any]) -> None:
        if stream.is_fenced:
            return
        stream.parts.append(part)
        if stream.told.is_set():
            stream.told.clear()
            self._waiting.append(stream)
            self._work.set()

    async def run(self) -> None:
        """Tell parts for ever."""
        while True:
            await self._work.wait()
            await asyncio.sleep(GATHER_SECONDS)
            streams = [
                self._waiting.popleft()
                for _ in range(min(MOST_ADDITIONS, len(self._waiting)))
            ]
            if not self._waiting:
                self._work.clear()
            await self._add([(each, self._take(each)) for each in streams])

    def _take(self, stream: Stream) -> Addition:
        parts, stream.parts = stream.parts, []
        return Addition(
            stream.tag, stream.task, stream.gateway, stream.place, orjson.dumps(parts)
        )

    async def _add(self, additions: list[tuple[Stream, Addition]]) -> None:
        deliveries = self.deliveries
        while True:
            try:
                taken = await add_parts(
                    deliveries.client,
                    deliveries.keys,
                    deliveries.worker,
                    [addition for _, addition in additions],
                )
                self._away_log.back(time.monotonic())
                break
            except (RedisError, OSError) as error:
                self._away_log.away(error, time.monotonic())
                await asyncio.sleep(AWAY_SECONDS)
        for (stream, _), listeners in zip(additions, taken, strict=True):
            stream.place += 1
            stream.is_fenced = listeners == NOT_OURS
            if listeners:
                stream.unheard_since = None
            elif stream.unheard_since is None:
                stream.unheard_since = time.monotonic()
            if stream.parts and not stream.is_fenced:
                self._waiting.append(stream)
                self._work.set()
            else:
                stream.told.set()


def _check_wanted(stream: Stream) -> None:
    """End what another delivery tells, or nobody hears. Raises Reject, RequestError."""
    if stream.is_fenced:
        raise Reject("another delivery tells this answer", requeue=False)
    since = stream.unheard_since
    if since is not None and time.monotonic() - since > UNHEARD_SECONDS:
        raise RequestError("the gateway that asked for this answer is gone")


def _nothing_yet(request: InferenceRequest) -> Assembly | ResponseAssembly:
    if request.path == RESPONSES_PATH:
        return ResponseAssembly()
    return Assembly(is_chat=request.task == CHAT)


def _rest(
    stream: Stream, request: InferenceRequest, body: dict[str, Any]
) -> dict[str, Any]:
    """What another engine is sent to go on. Raises EngineError."""
    rest = stream.sofar.find_rest(request, body)
    if rest is None:
        raise EngineError(
            f"an engine of {request.model} failed in the middle of this answer, "
            "which cannot go on from its text (tools, a format, several choices, "
            "log-likelihoods or thoughts are in it, or it is of /v1/responses); send "
            "the request again"
        )
    return rest
