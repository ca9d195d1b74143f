"""Pulls messages: for each subscribed queue exactly as many as there is room for.

Room is what the usable engines of the queue's model take at once, and a few to spare,
less what this worker holds. So nothing is hoarded, and a model that is stuck keeps no
other waiting. Messages with an ETA are set aside in Redis rather than in memory.
"""

import asyncio
import threading
from collections.abc import Callable, Collection, Container, Mapping
from typing import Any

from celery.utils.log import get_logger
from celery.worker.state import revoked
from redis.exceptions import RedisError, ResponseError

from modelserver.messaging.transport import Channel, Message
from modelserver.messaging.wire import CONTROL_QUEUE, STEER_QUEUE
from modelserver.store.batch import ANSWERED, DEADLINE, FAULTS, Delivery
from modelserver.store.messages.delivery import Deliveries
from modelserver.store.messages.embedded import find_followers
from modelserver.store.server.away_log import AwayLog
from workers.delivery.courier import FAULT_WAIT_SECONDS, Courier
from workers.delivery.server_clock import ServerClock
from workers.delivery.task_times import find_due, has_expired
from workers.delivery.trials import Trials
from workers.engines.fallbacks import REFUSED_AT_ONCE, Fallbacks
from workers.engines.roster import Roster
from workers.open_queues import LOOK_SECONDS, OpenQueues, is_cut_short
from workers.reading import UnreadableMessage, read
from workers.requests.bundles import Bundles

logger = get_logger(__name__)

#: For each so many requests that engines take, one more is held, so that a free place
#: does not wait for Redis. It goes back at once when the engine drains or dies.
REQUESTS_PER_SPARE = 16
#: Most such requests held for one model.
MOST_SPARE = 16
#: Users' own tasks that are held, and run, at once. One that waits stays
#: in its queue, where it may still expire or be revoked.
CONTROL_ROOM = 8
#: Most messages that one pull moves, so that its script takes the server a short time.
MOST_PULLED = 128
#: How often what is held is compared with the server's account, in seconds.
RECONCILE_SECONDS = 5.0
#: Wait between two tries to pull while Redis is away, in seconds.
PULL_RETRY_SECONDS = 0.2


class Intake:
    """The worker's side of our transport. Pulls on the loop's thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        deliveries: Deliveries,
        courier: Courier,
        roster: Roster,
        fallbacks: Fallbacks,
        clock: ServerClock,
        result_key: Callable[[str], str],
        abandon: Callable[[str], None],
        fail: Callable[[str, str, Exception, Mapping[str, Any]], None],
        bundles: Bundles,
        tasks: Container[str],
        accept: Collection[str],
    ) -> None:
        self.loop = loop
        self.deliveries = deliveries
        self.courier = courier
        self.roster = roster
        self.fallbacks = fallbacks
        self.clock = clock
        self.wakeup = asyncio.Event()
        self._open_queues = OpenQueues()
        self._away_log = AwayLog(logger, "pulling")
        courier.on_freed = self._on_freed
        #: False once the worker is to stop.
        self.pulling = True
        #: Nothing is pulled without a lease, whose end tells others that we are dead.
        self.leased = False
        #: Tasks that the store notes as revoked.
        self.revoked = 0
        #: Answers messages that nobody waits for, each with the reason.
        self.settle_unwanted: Callable[[list[tuple[Message, str]]], None]
        #: Set when others may have taken what is held here.
        self.must_reconcile = False
        #: Ends this worker's run of a message that others have taken.
        self.abandon = abandon
        #: Names of the tasks that this worker can run.
        self.tasks = tasks
        #: Content types that it can read.
        self.accept = accept
        self.trials = Trials(deliveries, courier, self._hand_over)
        self._fail = fail
        self._bundles = bundles
        self._refused_pulls: set[str] = set()
        self._result_key = result_key
        self._channel: Channel | None = None
        self._turn = 0
        self._reconciled_at = loop.time()

    # Called by kombu and Celery, on any thread.

    def attach(self, channel: Channel) -> None:
        """Pull for this channel from now on; the one before is gone."""
        self._channel = channel
        channel.attach(self)
        self.subscriptions_changed()

    def ack(self, tag: str) -> None:
        """The message is dealt with."""
        self._on_loop(self._bundles.ack, tag)

    def reject(self, tag: str, requeue: bool) -> None:
        """The message goes back to its queue, or nowhere."""
        self._on_loop(self.courier.give_back if requeue else self.courier.ack, tag)

    def subscriptions_changed(self) -> None:
        """Look again which queues to read."""
        self._on_loop(self.ring, "")

    def _on_loop(self, function: Callable[..., Any], *args: Any) -> None:
        if threading.get_ident() == self.loop._thread_id:  # type: ignore[attr-defined]
            function(*args)
        else:
            self.loop.call_soon_threadsafe(function, *args)

    # On the loop.

    def ring(self, queue: str) -> None:
        """There may be something to pull from this queue; "" is any."""
        # Celery knows one consumer for both.
        self._open_queues.open(CONTROL_QUEUE if queue == STEER_QUEUE else queue)
        self.wakeup.set()

    def _on_freed(self) -> None:
        """A place came free. Into an empty queue a bell rings."""
        if self._open_queues.make_room():
            self.wakeup.set()

    def queues(self) -> list[str]:
        """The subscribed queues that may have something, in the order of the pulls."""
        if not (self.pulling and self.leased) or self._channel is None:
            return []
        queues = sorted(self._channel.readable_queues)
        self._turn += 1
        cut = self._turn % len(queues) if queues else 0
        return self._open_queues.take(queues[cut:] + queues[:cut], self.loop.time())

    def room(self, queue: str) -> int:
        """Messages of this queue that may still be pulled."""
        active = self.courier.active
        if queue == CONTROL_QUEUE:
            return max(0, CONTROL_ROOM - active[queue])
        if self.courier.stands_back(queue):
            return 0
        fallbacks = self.fallbacks
        model = fallbacks.model_for(queue)
        most = self.roster.capacity(model)
        most += min(MOST_SPARE, most // REQUESTS_PER_SPARE)
        if not most and (down := fallbacks.find_down(queue)) and down.then == "fail":
            return max(0, REFUSED_AT_ONCE - active[queue])
        room = max(most - self._taken(model), self.roster.kept(model))
        return max(0, min(MOST_PULLED, room))

    def _kept(self, queue: str, room: int) -> int:
        """Of this room what filler leaves to urgent requests."""
        model = self.fallbacks.model_for(queue)
        kept = self.roster.kept(model)
        if not kept:
            return 0
        return room - max(0, self.roster.capacity(model) - kept - self._taken(model))

    def _taken(self, model: str) -> int:
        active, model_for = self.courier.active, self.fallbacks.model_for
        return sum(n for queue, n in active.items() if model_for(queue) == model)

    async def run(self) -> None:
        """Pull for ever."""
        while True:
            self.wakeup.clear()
            try:
                if self.must_reconcile or self._reconcile_is_due():
                    await self._reconcile()
                pulled = await self._pull_all()
            except (RedisError, OSError) as error:
                self._away_log.away(error, self.loop.time())
                self.must_reconcile = True
                self._open_queues.open_all()
                await asyncio.sleep(PULL_RETRY_SECONDS)
                continue
            self._away_log.back(self.loop.time())
            if pulled:
                # What was handed over goes to its engine before more is asked for.
                await asyncio.sleep(0)
            else:
                await self._wait()

    def _reconcile_is_due(self) -> bool:
        return self.loop.time() - self._reconciled_at > RECONCILE_SECONDS

    async def _pull_all(self) -> int:
        pulled = 0
        for queue in self.queues():
            room = self.room(queue)
            kept = self._kept(queue, room) if room else 0
            if kept or not room:
                self._open_queues.wait_for_room(queue)
            if queue == CONTROL_QUEUE:
                pulled += await self._pull_control(room)
            elif room:
                deliveries = await self._pull(queue, room, kept=kept)
                for delivery in deliveries:
                    self.courier.took(queue, delivery)
                await self._deliver_all(queue, deliveries)
                pulled += len(deliveries)
        return pulled

    async def _pull(
        self, queue: str, room: int, before: str = "", kept: int = 0
    ) -> list[Delivery]:
        """Nothing where the server refuses: other queues are not to wait for this."""
        try:
            deliveries = await self.deliveries.pull(queue, room, before, kept)
        except ResponseError as error:
            if queue not in self._refused_pulls:
                logger.error("nothing can be pulled from %s: %s", queue, error)
            self._refused_pulls.add(queue)
            return []
        self._refused_pulls.discard(queue)
        if is_cut_short(deliveries, room):
            self.ring(queue)
        return deliveries

    async def _pull_control(self, room: int) -> int:
        """Pull users' own tasks, and the beat job, which needs no room of theirs."""
        if room:
            pull = self._pull(CONTROL_QUEUE, room, before=STEER_QUEUE)
        elif not self.courier.active[STEER_QUEUE]:
            pull = self._pull(STEER_QUEUE, 1)
        else:
            return 0
        deliveries = await pull
        for delivery in deliveries:
            own = self.deliveries.keys.queue_of(delivery.source)
            self.courier.took(own, delivery)
        # Celery knows one consumer for both.
        await self._deliver_all(CONTROL_QUEUE, deliveries)
        return len(deliveries)

    async def _wait(self) -> None:
        """Wait until a bell rings, room comes free or a subscription changes."""
        again = self.roster.next_change() or LOOK_SECONDS
        try:
            # Not wait_for: in Python 3.11 it can swallow a cancellation.
            async with asyncio.timeout(min(LOOK_SECONDS, again)):
                await self.wakeup.wait()
        except TimeoutError:
            self._open_queues.open_all()

    async def _reconcile(self) -> None:
        """Agree with the server about what this worker holds.

        A pull whose reply was lost left messages with us that nobody here knows: they
        go back. Messages that were reaped while we were taken for dead are others' now.
        After a failover the server may have lost what it was told last, without any
        error: so this is also done now and then.
        """
        known = self.courier.knows()
        held = await self.deliveries.held()
        if returns := await self.deliveries.returns(held - known):
            logger.warning("%d messages were pulled unseen; given back", len(returns))
            self.courier.give_back_unknown(returns)
        for tag in known & frozenset(self.courier.held) - held:
            self.abandon(tag)
        self.must_reconcile = False
        self._reconciled_at = self.loop.time()

    async def _deliver_all(self, queue: str, deliveries: list[Delivery]) -> None:
        messages, channel = [], self._channel
        for delivery in deliveries:
            if channel is None:
                self.courier.give_back(delivery.tag)
                continue
            message = read(delivery, queue, channel, self.tasks, self.accept)
            if isinstance(message, UnreadableMessage):
                self.refuse(delivery.tag, message)
            else:
                messages.append(message)
        again = [message for message in messages if _may_be_answered(message)]
        answered = await self._answered_tags(again) if again else frozenset()
        for message in await self._wanted(messages):
            tag = str(message.delivery_tag)
            if tag not in self.courier.held:
                continue  # Taken for dead meanwhile: others have it.
            if DEADLINE in message.headers:
                self.courier.held[tag].deadline_of = message.headers["id"]
            self.courier.held[tag].faults = _count(message.headers.get(FAULTS))
            due = find_due(message.headers)
            if tag in answered and not find_followers(message.decode()):
                self.courier.ack(tag)
            elif tag in answered:
                message.headers[ANSWERED] = True
                self._hand_over(queue, message)
            elif due is not None and due > self.clock.now():
                self.courier.park(tag, due)
            elif self.trials.is_suspect(message):
                raw = self.courier.held[tag].delivery.raw
                if not self._bundles.isolate(tag, raw):
                    self.trials.add(queue, message)
            else:
                self._hand_over(queue, message)

    async def _wanted(self, messages: list[Message]) -> list[Message]:
        """Those that somebody waits for; the others are settled, many at once."""
        named: frozenset[str] = frozenset()
        if self.revoked and messages:
            tasks = [message.headers["id"] for message in messages]
            try:
                named = await self.deliveries.revoked(tasks)
            except (RedisError, OSError):
                # Nobody here would have them: they go back, and are looked up again.
                for message in messages:
                    self.courier.give_back(str(message.delivery_tag))
                raise
        now, wanted, unwanted = self.clock.now(), [], []
        for message in messages:
            task = message.headers["id"]
            if task in named or task in revoked:
                reason = "revoked"
            elif has_expired(message.headers.get("expires"), now):
                reason = "expired"
            else:
                wanted.append(message)
                continue
            tag = str(message.delivery_tag)
            if self._bundles.revoke(tag, self.courier.held[tag].delivery.raw):
                continue
            if "chord" in find_followers(message.decode()):
                # Celery does it, which counts the chord's part.
                if reason == "revoked":
                    revoked.add(task)
                wanted.append(message)
            else:
                unwanted.append((message, reason))
        if unwanted:
            self.settle_unwanted(unwanted)
        return wanted

    def refuse(self, tag: str, message: UnreadableMessage) -> None:
        """Answer a message that nobody can execute, and let it go."""
        task, error = message.task, message.error
        logger.error("task=%s delivery=%s is refused: %s", task, tag, error)
        if message.task:
            self._fail(tag, message.task, message.error, message.request)
        else:
            self.courier.ack(tag)

    async def _answered_tags(self, messages: list[Message]) -> frozenset[str]:
        """Of messages delivered before, those whose answer is stored already."""
        keys = [self._result_key(message.headers["id"]) for message in messages]
        try:
            found = await self.deliveries.answered(keys)
        except (RedisError, OSError):
            # Executed again: if there is an answer, the new one is refused.
            return frozenset()
        return frozenset(
            str(message.delivery_tag)
            for message, there in zip(messages, found, strict=True)
            if there
        )

    def _hand_over(self, queue: str, message: Message) -> None:
        channel = self._channel
        tag = str(message.delivery_tag)
        if channel is None or channel.connection is None:
            self.courier.give_back(tag)
            return
        try:
            channel.connection._deliver(message, queue)
        except Exception as error:
            logger.debug("delivery=%s could not be handed over", tag, exc_info=True)
            if tag not in self.courier.held:
                return
            if self.courier.is_last_fault(tag, error):
                task = message.headers["id"]
                self.refuse(tag, UnreadableMessage(task, error, message.headers))
            else:
                self.loop.call_later(FAULT_WAIT_SECONDS, self.courier.give_back, tag)


def _may_be_answered(message: Message) -> bool:
    """Whether an earlier run may have stored an answer to this message."""
    return bool(message.delivery_info.get("redelivered"))


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
