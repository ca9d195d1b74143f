"""Everything that one worker runs on its loop, put together and taken apart."""

import asyncio
import threading
import uuid
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import orjson
from celery import states
from celery._state import _task_stack, get_current_task
from celery.app.task import Context
from celery.utils.log import get_logger
from kombu.serialization import prepare_accept_content
from redis.asyncio import Redis
from redis.exceptions import RedisError

from modelserver.engine_client import open_session
from modelserver.errors import DeadlineExceededError, PoisonError
from modelserver.garbage import tame_collection
from modelserver.messaging.followers import Origin
from modelserver.messaging.running_worker import set_worker
from modelserver.messaging.wire import ROWS
from modelserver.settings import Settings
from modelserver.store import Keys
from modelserver.store.batch import ANSWERED, Delivery, Stored, StoreResult
from modelserver.store.messages.delivery import Deliveries
from modelserver.store.messages.reaps import MOST_REAPS
from modelserver.store.server.connections import open_async
from modelserver.tracing import find_tracer
from workers import bridge
from workers.delivery.courier import Courier
from workers.delivery.server_clock import ServerClock
from workers.delivery.unwanted import Unwanted
from workers.engines.fallbacks import Fallbacks
from workers.engines.fleet_follower import FleetFollower
from workers.engines.partners import Partners
from workers.engines.roster import Roster
from workers.intake import Intake
from workers.lease import Lease
from workers.requests.bundles import Bundles
from workers.requests.executor import Executor, too_late

logger = get_logger(__name__)

T = TypeVar("T")

#: How long a stopping worker tries to carry its last batch, in seconds.
LAST_BATCH_SECONDS = 10.0


class Service:
    """One worker's parts. Made on the main thread, everything else on the loop's."""

    def __init__(self, app: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.app = app
        self.loop = loop
        self.settings: Settings = app.modelserver_settings
        self.grace_seconds = self.settings.fleet.rules.grace_seconds
        self._parts: list[asyncio.Task[None]] = []
        self._jobs: dict[str, Any] = {}
        self._background: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Open connections, take the lease, begin to run."""
        tame_collection()
        settings = self.settings
        self.client = self._open(settings.redis_url)
        apart = settings.results_url != settings.redis_url
        self.results = self._open(settings.results_url) if apart else None
        worker = f"{settings.host}-{uuid.uuid4().hex[:12]}"
        keys = Keys(settings.fleet.redis.prefix)
        self.deliveries = Deliveries(self.client, keys, worker, self.results)
        self.courier = Courier(self.deliveries)
        self.roster = Roster(settings.host)
        self.tracer = find_tracer(settings.is_traced)
        self.session = open_session(keys=settings.keyring(), tracer=self.tracer)
        self._put_together(worker)
        set_worker(self.app, self)
        for part in (
            self.courier.run,
            self.executor.streams.run,
            self.intake.run,
            self.lease.run,
            self.partners.run,
            self.lease.wake,
            self.lease.reap,
            self.lease.watch_memory,
            self.intake.trials.run,
            self.bundles.watch,
            self.follower.watch,
            self.follower.listen,
        ):
            self._parts.append(self.loop.create_task(self._forever(part)))

    def _put_together(self, worker: str) -> None:
        settings = self.settings
        self.clock = clock = ServerClock()
        fallbacks = Fallbacks(self.roster)
        specs = {spec.name: spec for spec in settings.fleet.specs()}
        self.executor = Executor(
            self.roster,
            fallbacks,
            self.courier,
            self.session,
            specs,
            clock,
            self.tracer,
        )
        self.bundles = Bundles(
            self.deliveries, self.courier, self.executor, self._abandon
        )
        self.intake = Intake(
            self.loop,
            self.deliveries,
            self.courier,
            self.roster,
            fallbacks,
            clock,
            self.app.backend.backend_key,
            self._abandon,
            self._refuse,
            self.bundles,
            self.app.tasks,
            prepare_accept_content(self.app.conf.accept_content),
        )
        unwanted = Unwanted(self.app.backend, self.courier)
        self.intake.settle_unwanted = unwanted.settle
        self.lease = Lease(
            self.deliveries,
            self.intake,
            self.roster,
            clock,
            worker,
            settings.fleet.rules.lease_seconds,
            self._expire,
            self._set_aside,
        )
        self.follower = FleetFollower(
            self.client,
            settings,
            self.app.modelserver_models,
            self.roster,
            fallbacks,
            self.intake.ring,
        )
        self.follower.on_fleet = self._go_by
        suspects = self.executor.crashes.suspects
        self.partners = Partners(
            self.deliveries, self.roster, suspects, self.follower.announce
        )
        self.lease.on_taken = self.partners.join

    def _go_by(self, settings: Settings) -> None:
        """Take over what another fleet says of times and models."""
        self.settings, fleet = settings, settings.fleet
        # What control goes by where it refuses the fleet in the store.
        self.app.modelserver_settings = settings
        self.grace_seconds = fleet.rules.grace_seconds
        self.lease.seconds = fleet.rules.lease_seconds
        self.executor.specs = {spec.name: spec for spec in fleet.specs()}

    def _open(self, url: str) -> Redis:
        return open_async(url, self.settings.fleet.redis.max_connections)

    async def _forever(self, part: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run one part; a fault in it is logged and the part started again."""
        while True:
            try:
                await part()
            except Exception:
                logger.exception("%s failed; started again", part.__qualname__)
                await asyncio.sleep(1)

    def stop_pulling(self) -> None:
        """Take nothing new; what has not begun goes back at once. Any thread."""
        self.intake.pulling = False
        self.loop.call_soon_threadsafe(self.roster.close)

    async def close(self) -> None:
        """Give back what is held, write the last batch, end the lease."""
        await self._cancel_parts()
        for tag in list(self.courier.held):
            self.courier.give_back(tag)
        try:
            async with asyncio.timeout(LAST_BATCH_SECONDS):
                await self.courier.flush()
                await self.partners.leave()
                await self.deliveries.leave()
        except (TimeoutError, RedisError, OSError) as error:
            logger.error(
                "Redis away at the end (%s): other workers give back what was held "
                "when this worker's lease ends",
                str(error) or f"it took nothing within {LAST_BATCH_SECONDS:g} s",
            )
        set_worker(self.app, None)
        await self.session.close()
        await self.client.aclose()
        if self.results:
            await self.results.aclose()

    async def _cancel_parts(self) -> None:
        pending = {*self._parts, *self.executor.probes.running}
        while pending:
            # Again and again: a library's timeout can swallow a cancellation.
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=0.5)
            for task in pending:
                logger.warning("still running at the end: %s", task.get_stack())

    # What the pool, the intake and the lease ask.

    def started(self, tag: str, job: Any) -> None:
        """A job began for this message."""
        self._jobs[tag] = job
        job.task.add_done_callback(lambda _: self._jobs.pop(tag, None))

    def _abandon(self, tag: str) -> None:
        """End our run of a message that is another worker's now, silently."""
        self.courier.lost(tag)
        if job := self._jobs.get(tag):
            job.interrupt(None)

    async def fail(
        self, tag: str, task: str, error: Exception, request: Mapping[str, Any]
    ) -> None:
        """Answer a message by an error, and tell whoever waits for its task."""
        key, value, seconds = self.app.backend.failure(task, error)
        result = StoreResult(tag, key, value, seconds, True)
        stored = await self.courier.store(result)
        steps = any(request.get(name) for name in ("errbacks", "chord", "chain"))
        if stored is not Stored.STORED or not steps:
            return
        try:
            context = Context(request, id=task)
            tell = self.app.backend.mark_as_failure
            await asyncio.to_thread(tell, task, error, None, context, False)
        except Exception as fault:
            logger.error("task=%s failed, and nobody could be told: %r", task, fault)

    def _refuse(
        self, tag: str, task: str, error: Exception, request: Mapping[str, Any]
    ) -> None:
        """Fail a message in the background, then let it go."""
        self._in_background(self._fail_and_ack(tag, task, error, request))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        running = self.loop.create_task(work)
        self._background.add(running)
        running.add_done_callback(self._background.discard)

    async def _fail_and_ack(
        self, tag: str, task: str, error: Exception, request: Mapping[str, Any]
    ) -> None:
        try:
            await self.fail(tag, task, error, request)
        except Exception as fault:
            logger.error(
                "task=%s failed, and its error could not be stored: %r", task, fault
            )
        self.courier.ack(tag)

    def _set_aside(self, delivery: Delivery) -> None:
        """Make a dead letter of a message that too many workers have died with."""
        queue = self.deliveries.keys.queue_of(delivery.source)
        self.courier.took(queue, delivery)
        self._in_background(self._bury(delivery))

    async def _bury(self, delivery: Delivery) -> None:
        headers = orjson.loads(delivery.raw)["headers"]
        task, tag = str(headers.get("id") or ""), delivery.tag
        key = self.app.backend.backend_key(task)
        try:
            answered = not task or (await self.deliveries.answered([key]))[0]
        except (RedisError, OSError):
            answered = False  # If there is an answer, the new one is refused.
        if answered:
            self.courier.ack(tag)
            return
        reason = f"{MOST_REAPS} workers died with it"
        if headers.get("task") == ROWS:
            self.bundles.set_aside(delivery, reason)
            return
        logger.error("task=%s delivery=%s is set aside: %s", task, tag, reason)
        self.courier.bury(tag, task, {"reason": reason, "at": self.clock.now()})
        error = PoisonError(
            f"the request was set aside: {reason}; see `modelserver dead`"
        )
        await self._fail_and_ack(tag, task, error, headers)

    def _expire(self, task: str) -> "asyncio.Future[Stored]":
        """Answer a request whose deadline passed in its queue."""
        error = DeadlineExceededError(too_late("its model"))
        key, value, seconds = self.app.backend.failure(task, error)
        return self.courier.settle(task, StoreResult("", key, value, seconds, True))

    def info(self) -> dict[str, Any]:
        """What ``celery inspect stats`` shows."""
        return {"held": dict(self.courier.active), "engines": self.roster.loads()}

    # What tasks ask: modelserver.messaging.running_worker.RunningWorker.

    def can_wait(self) -> bool:
        """Whether the caller is inside the pool's bridge."""
        return bridge.inside()

    def execute(self, task: str, args: Any, kwargs: Any, context: Any) -> Any:
        """The answer to a request; the stored one if there is one."""
        if context.get(ANSWERED):
            meta = self.run_in_thread(self.app.backend._get_task_meta_for, context.id)
            if meta["status"] in states.PROPAGATE_STATES:
                raise meta["result"]
            if meta["status"] == states.SUCCESS:
                return meta["result"]
        return bridge.wait(self.executor.execute(task, args, kwargs, context))

    def execute_rows(self, bundle: Any, context: Any) -> None:
        """Answer the rows of a bundle."""
        bridge.wait(self.bundles.execute(bundle, context))

    def origin(self, tag: str, task: str) -> Origin | None:
        """The delivery of a task that runs here; None if it is no longer here."""
        held = self.courier.held.get(tag)
        if held is None:
            return None
        keys = self.deliveries.keys
        held.published = keys.published(task)
        return Origin(keys.unacked(self.deliveries.worker), tag, held.published)

    def store(self, result: StoreResult) -> Stored:
        """Store a result in the batch of the moment and wait for it."""
        return bridge.wait(self.courier.store(result))

    def is_on_loop(self) -> bool:
        """Whether the caller's thread is the loop's, in a task or not."""
        ident: int | None = self.loop._thread_id  # type: ignore[attr-defined]
        return threading.get_ident() == ident

    def store_from_thread(self, result: StoreResult) -> Stored:
        """Store a result of a task in a thread, and wait for it there."""
        # Celery acknowledges some failures before it stores them: the tag cannot fence.
        unfenced = replace(result, tag="")

        async def store() -> Stored:
            return await self.courier.store(unfenced)

        return asyncio.run_coroutine_threadsafe(store(), self.loop).result()

    def run_in_thread(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a blocking function in a thread, as the task of now, and wait for it."""
        task = get_current_task()
        if task is None:
            return bridge.wait(asyncio.to_thread(function, *args, **kwargs))
        request = task.request_stack.top

        def as_task() -> T:
            # Celery finds the parent of what it publishes on the thread's own stack.
            _task_stack.push(task)
            task.request_stack.push(request)
            try:
                return function(*args, **kwargs)
            finally:
                task.request_stack.pop()
                _task_stack.pop()

        return bridge.wait(asyncio.to_thread(as_task))
