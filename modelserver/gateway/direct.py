"""Requests sent and awaited on the gateway's loop, all on one connection.

They are the messages and results of Celery's, without its layers and without threads. A
result's channel is subscribed to before the message is put, on the same connection: so
no answer comes unheard. What is stored already, or large, is read on another one: a
server closes a connection that listens where many megabytes wait for it.
"""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import Any

from celery import Celery, states
from celery.utils.nodenames import anon_nodename
from redis.asyncio import Redis
from redis.exceptions import RedisError

from modelserver.api import InferenceTask
from modelserver.gateway.bodies import TaskCall
from modelserver.gateway.headers import Caller
from modelserver.gateway.patience import PAUSE_SECONDS, end, patiently
from modelserver.messaging.listening import PATIENCE_SECONDS, blocks, silent_error
from modelserver.messaging.sending import BackgroundSender, accepted_or_unreachable
from modelserver.messaging.transport import put_command
from modelserver.messaging.wire import CatalogueSource
from modelserver.server_address import plain_url
from modelserver.settings import Settings
from modelserver.store.batch import BY_NOTICE
from modelserver.store.keys import Keys, priority_step
from modelserver.store.server.line import Line, read_error

#: Channels that nobody waits for any more are left so many at a time.
MOST_LEFT = 64
#: Seconds between two looks whether Redis is away for too long.
LOOK_SECONDS = 1.0


def can_go_directly(settings: Settings) -> bool:
    """Whether no message has more to it: traces, shown prompts, results elsewhere."""
    fleet = settings.fleet
    is_plain = not (settings.is_traced or fleet.rules.show_prompts)
    return is_plain and not fleet.redis.results_url


class DirectWay:
    """The requests of one gateway that are under way. Lives on a loop."""

    def __init__(
        self, app: Celery, client: Redis, keys: Keys, long_bodies: Executor
    ) -> None:
        self._app = app
        self._keys = keys
        self._models: CatalogueSource = app.modelserver_models
        self._sender: BackgroundSender = app.modelserver_sender
        self._tasks: dict[str, InferenceTask] = {
            task.name: task for task in app.modelserver_tasks
        }
        #: Where what takes long to look through is made a message of.
        self._long_bodies = long_bodies
        self._origin = anon_nodename()
        self._client = client
        self._line = Line(client, self._hear, self._listen_again)
        #: Who waits, by the result's key.
        self._waits: dict[str, list[asyncio.Future[Any]]] = {}
        #: Keys that nobody waits for any more, and that are still listened for.
        self._left: dict[str, None] = {}
        #: Set where something may have been told that nobody heard.
        self._missed = asyncio.Event()
        self._looking: asyncio.Task[Any] | None = None
        self._reading: set[asyncio.Task[None]] = set()
        self._parts: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to listen."""
        parts = (self._line.run, self._look_up, self._give_up)
        self._parts = [asyncio.create_task(part()) for part in parts]

    async def stop(self) -> None:
        """Listen no more."""
        await end(self._parts)

    @asynccontextmanager
    async def sent(
        self,
        call: TaskCall,
        arguments: dict[str, Any],
        options: dict[str, Any],
        caller: Caller,
    ) -> "AsyncIterator[asyncio.Future[Any]]":
        """The answer of a request that was accepted; left before, it is called off.

        One that its client may repeat goes on. Raises errors of modelserver.errors.
        """
        key = self._keys.result(options["task_id"])
        answer = asyncio.get_running_loop().create_future()
        self._waits.setdefault(key, []).append(answer)
        self._left.pop(key, None)

        def command() -> tuple[Any, ...]:
            return self._command(call, arguments, options)

        async def put() -> None:
            if not self._models.is_fresh:
                await self._look_at_models()
            if caller.is_short:
                made = command()
            else:
                loop = asyncio.get_running_loop()
                made = await loop.run_in_executor(self._long_bodies, command)
            await self._put(key, made)

        try:
            await patiently(put)
            yield answer
        except (asyncio.CancelledError, GeneratorExit):
            if not caller.idempotency_key:
                self._call_off(options["task_id"])
            raise
        finally:
            self._forget(key, answer)

    def _command(
        self, call: TaskCall, arguments: dict[str, Any], options: dict[str, Any]
    ) -> tuple[Any, ...]:
        headers = {"id": options["task_id"], "origin": self._origin, BY_NOTICE: True}
        headers |= options["headers"]
        priority = options["priority"]
        compose = self._tasks[call.task].compose
        queue, message = compose(call.payload, arguments, priority, headers)
        main = self._keys.queue(queue)[priority_step(priority)]
        script, names, values = put_command(self._keys, main, queue, message)
        return ("EVAL", script, len(names), *names, *values)

    async def _put(self, key: str, command: tuple[Any, ...]) -> None:
        with accepted_or_unreachable(self._app):
            if len(self._left) >= MOST_LEFT:
                self._line.unsubscribe(*self._left)
                self._left.clear()
            self._line.subscribe(key)
            if not await self._line.send(*command):
                # It was sent before, and is answered or under way.
                value: Any = await self._client.get(key)
                self._hear(key.encode(), value)

    async def _look_at_models(self) -> None:
        """Have the catalogue look into the store, which blocks; once for all."""
        if self._looking is None:
            self._looking = asyncio.create_task(asyncio.to_thread(self._models))
            self._looking.add_done_callback(self._looked)
        await asyncio.shield(self._looking)

    def _looked(self, looking: "asyncio.Task[Any]") -> None:
        # Also where nobody waits for it any more: the next one looks again.
        self._looking = None
        read_error(looking)

    def _call_off(self, task: str) -> None:
        """Revoke a request, once the server has all that was sent until now."""
        try:
            told = self._line.send("PING")
        except RedisError:
            self._sender.call_off(task)
        else:
            told.add_done_callback(lambda _: self._sender.call_off(task))
            told.add_done_callback(read_error)

    def _forget(self, key: str, answer: "asyncio.Future[Any]") -> None:
        waits = self._waits.get(key, [])
        if answer in waits:
            waits.remove(answer)
        if not waits and self._waits.pop(key, None) is not None:
            self._left[key] = None
        if not answer.cancel():
            read_error(answer)

    # What the line tells.

    def _hear(self, key: bytes, value: bytes | None) -> None:
        """A state of a result, empty for one that is to be read, or None for none."""
        waits = self._waits.get(key.decode())
        if not waits or value is None:
            return
        if not value:
            reading = asyncio.create_task(self._read(key))
            self._reading.add(reading)
            reading.add_done_callback(self._reading.discard)
            return
        try:
            meta = self._app.backend.decode_meta(value)
            if meta["status"] not in states.READY_STATES:
                return
            answer = self._answer_of(meta)
        except Exception as error:
            for wait in waits:
                if not wait.done():
                    wait.set_exception(error)
        else:
            for wait in waits:
                if not wait.done():
                    wait.set_result(answer)

    async def _read(self, key: bytes) -> None:
        """Read a result that is too large for the connection that listens."""
        try:
            value: Any = await self._client.get(key)
        except (RedisError, OSError):
            self._missed.set()
        else:
            self._hear(key, value)

    def _answer_of(self, meta: dict[str, Any]) -> Any:
        """The answer of a task that has ended. Raises its error."""
        if meta["status"] == states.SUCCESS:
            return meta["result"]
        result = self._app.AsyncResult(meta["task_id"])
        result._maybe_set_cache(meta)
        return result.maybe_throw()

    def _listen_again(self) -> None:
        """Subscribe anew, and have looked for what was told meanwhile."""
        self._left.clear()
        for keys in blocks(list(self._waits)):
            self._line.subscribe(*keys)
        self._missed.set()

    async def _look_up(self) -> None:
        """Look for what was told unheard, for ever."""
        while True:
            await self._missed.wait()
            self._missed.clear()
            try:
                await self._line.send("PING")  # By its reply all is subscribed to.
                for keys in blocks(list(self._waits)):
                    values: Any = await self._client.mget(keys)
                    for key, value in zip(keys, values, strict=True):
                        self._hear(key.encode(), value)
            except (RedisError, OSError):
                self._missed.set()
                await asyncio.sleep(PAUSE_SECONDS)

    async def _give_up(self) -> None:
        """End all waits where Redis is away for too long, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            lost_at = self._line.lost_at
            if lost_at is None or loop.time() - lost_at < PATIENCE_SECONDS:
                continue
            address = plain_url(self._app.backend.url or "")
            error = silent_error(address, self._line.lost_by)
            for waits in self._waits.values():
                for wait in waits:
                    if not wait.done():
                        wait.set_exception(error)
