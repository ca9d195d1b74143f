"""Carries results, acknowledgements and samples to Redis, many in one round trip.

Whatever collects while one round trip is under way makes up the next. A task waits for
its result's round trip before Celery acknowledges it, so the result is always first.
While Redis is away nothing is lost: the batch is kept and tried until it is through.
"""

import asyncio
import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson
from celery.exceptions import BackendError
from celery.utils.log import get_logger
from kombu.exceptions import OperationalError
from redis.exceptions import OutOfMemoryError, RedisError

from modelserver.store.batch import (
    FAULTS,
    Batch,
    Bury,
    Delivery,
    GiveBack,
    Park,
    Stored,
    StoreResult,
    portion,
)
from modelserver.store.delivery import Deliveries, mark_redelivered
from modelserver.values import Sample

logger = get_logger(__name__)

#: Most results in one round trip; bounds its size when long answers pile up.
MOST_BATCH_RESULTS = 256
#: Waits between tries to carry a batch while Redis is away, in seconds; the last one is
#: repeated.
BATCH_RETRY_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)
#: A message that could not be handed over or run so often fails.
MOST_FAULTS = 2
#: The same where the reason was that Redis could not be reached.
MOST_UNREACHABLE = 20
#: Wait before a message goes back that could not be handed over or run, in seconds,
#: because it may be here again at once.
FAULT_WAIT_SECONDS = 1.0
#: Most messages that take no room because they wait; more of them do take it.
MOST_ASIDE = 1024
#: The same for the bytes of these messages.
MOST_ASIDE_BYTES = 64_000_000
#: How long a worker pulls nothing of a queue that it has passed a message on in, in
#: seconds, so that another one gets that.
COURTESY_SECONDS = 0.05
#: The least time from one such pause of a queue to the next, in seconds.
COURTESY_PAUSE_SECONDS = 0.5
#: What is raised outside a task while Redis is away; no fault of its message.
UNREACHABLE = (OSError, RedisError, BackendError, OperationalError)
#: After so many tries of a batch while the server answers, each result goes alone.
TRIES_TOGETHER = 3
#: A result is refused for good after so many tries alone while the server answers.
TRIES_ALONE = 2
#: How errors begin that are the server's state and no result's fault.
_PASSING = (
    *("OOM", "BUSY", "LOADING", "MISCONF", "NOREPLICAS", "READONLY", "MASTERDOWN"),
    *("CLUSTERDOWN", "TRYAGAIN", "NOAUTH", "NOPERM", "WRONGPASS", "UNKILLABLE"),
)


@dataclass(slots=True)
class HeldMessage:
    """A message that this worker holds."""

    queue: str
    delivery: Delivery
    #: The id of its task if that has a deadline.
    deadline_of: str = ""
    #: The key of what was published that follows it, if anything was.
    published: str = ""
    #: Whether an engine has answered; the answer may still be on its way to Redis.
    answered: bool = False
    #: How often it could not be handed over or run before.
    faults: int = 0
    #: Whether it takes no room: it waits for its turn, or for its next attempt.
    aside: bool = False
    #: Whether it goes back for the engines of other hosts.
    is_passed_on: bool = False
    #: Headers that the message gets if it goes back.
    amendments: dict[str, Any] = field(default_factory=dict)


def _amended(held: HeldMessage) -> bytes:
    if not held.amendments:
        return held.delivery.raw
    message = orjson.loads(held.delivery.raw)
    message["headers"].update(held.amendments)
    return orjson.dumps(message)


class Courier:
    """The messages that this worker holds, and what Redis is to be told about them.

    Lives on the loop's thread.
    """

    def __init__(self, deliveries: Deliveries) -> None:
        self.deliveries = deliveries
        #: By tag.
        self.held: dict[str, HeldMessage] = {}
        #: By queue: messages that are held and not answered yet.
        self.active: Counter[str] = Counter()
        #: Called when a message is let go, which makes room for another.
        self.on_freed: Callable[[], None] = lambda: None
        #: How many messages are set aside, and their bytes.
        self.aside, self.aside_bytes = 0, 0
        #: By queue: when a message was last passed on in it, monotonic.
        self._passed_on_at: dict[str, float] = {}
        self._batch = Batch()
        self._waiting: list[asyncio.Future[Stored]] = []
        self._work = asyncio.Event()
        self._carrying: asyncio.Task[None] | None = None
        self._settling: set[str] = set()
        self._let_go_events: dict[str, asyncio.Event] = {}
        #: Answers by tag, stored or on their way there, until the tag is settled.
        self._answers: dict[str, StoreResult] = {}

    def knows(self) -> frozenset[str]:
        """Tags that are held, or whose settling has not reached the server yet."""
        return frozenset(self.held) | self._settling

    def took(self, queue: str, delivery: Delivery) -> None:
        """Hold a message that was pulled."""
        self.held[delivery.tag] = HeldMessage(queue, delivery)
        self.active[queue] += 1

    def when_let_go(self, tag: str) -> asyncio.Event:
        """Set once this message, which is held, is held no more."""
        return self._let_go_events.setdefault(tag, asyncio.Event())

    def is_last_fault(self, tag: str, error: Exception) -> bool:
        """Count that a message could not be handed over or run; whether it fails now.

        The count goes with the message, so that it cannot go round for ever.
        """
        held = self.held.get(tag)
        if held is None:
            return False
        faults = held.faults + 1
        self.amend(tag, {FAULTS: faults})
        unreachable = isinstance(error, UNREACHABLE)
        return faults >= (MOST_UNREACHABLE if unreachable else MOST_FAULTS)

    def answered(self, tag: str) -> None:
        """The engine is done with it: another may be pulled while this is stored."""
        held = self.held.get(tag)
        if held is not None and not held.answered:
            held.answered = True
            self._free(held)

    def set_aside(self, tag: str, aside: bool) -> None:
        """Whether the message takes no room for now, within bounds."""
        held = self.held.get(tag)
        if held is None or held.answered or held.aside == aside:
            return
        size = len(held.delivery.raw)
        if not aside:
            self._end_aside(held)
            self.active[held.queue] += 1
        elif self.aside < MOST_ASIDE and self.aside_bytes + size <= MOST_ASIDE_BYTES:
            self._free(held)
            self.aside += 1
            self.aside_bytes += size
            held.aside = True

    def _end_aside(self, held: HeldMessage) -> None:
        if held.aside:
            self.aside -= 1
            self.aside_bytes -= len(held.delivery.raw)
            held.aside = False

    def pass_on(self, tag: str) -> None:
        """When this message goes back, let another worker have it."""
        if held := self.held.get(tag):
            held.is_passed_on = True

    def stands_back(self, queue: str) -> bool:
        """Whether nothing of a queue is to be pulled for a moment."""
        at = self._passed_on_at.get(queue)
        return at is not None and time.monotonic() - at < COURTESY_SECONDS

    def _stand_back(self, queue: str) -> None:
        now = time.monotonic()
        if now - self._passed_on_at.get(queue, 0.0) >= COURTESY_PAUSE_SECONDS:
            self._passed_on_at[queue] = now
            loop = asyncio.get_running_loop()
            loop.call_later(1.1 * COURTESY_SECONDS, lambda: self.on_freed())

    def _free(self, held: HeldMessage) -> None:
        if not held.aside:
            self.active[held.queue] -= 1
            self.on_freed()

    def store(self, result: StoreResult) -> "asyncio.Future[Stored]":
        """Store a result; the future says what became of it."""
        future: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        if result.final and result.tag:
            self._answers[result.tag] = result
        self._batch.results.append(result)
        self._waiting.append(future)
        self._work.set()
        return future

    def settle(self, task: str, result: StoreResult) -> "asyncio.Future[Stored]":
        """Answer a request whose message is elsewhere, unless it is answered."""
        return self.store(dataclasses.replace(result, settles=task))

    def ack(self, tag: str) -> None:
        """The message is dealt with."""
        if held := self._let_go(tag):
            self._batch.acks.append(tag)
            if held.deadline_of:
                self._batch.answered.append(held.deadline_of)
            if held.published:
                self._batch.published.append(held.published)
            self._work.set()

    def forget_revoked(self, tasks: Iterable[str]) -> None:
        """These are settled, and nobody need know any more that they were revoked."""
        self._batch.revoked.extend(tasks)
        self._work.set()

    def give_back(self, tag: str) -> None:
        """The message goes back to the head of its queue, marked as redelivered."""
        if held := self._let_go(tag):
            raw = mark_redelivered(_amended(held))
            self._batch.returns.append(GiveBack(tag, held.delivery.source, raw))
            self._work.set()
            if held.is_passed_on:
                self._stand_back(held.queue)

    def amend(self, tag: str, headers: dict[str, Any]) -> None:
        """Add headers that the message gets if it goes back."""
        if held := self.held.get(tag):
            held.amendments |= headers

    def bury(self, tag: str, task: str, letter: dict[str, Any]) -> None:
        """Keep the message as a dead letter; its result and acknowledgement follow."""
        if held := self.held.get(tag):
            letter = letter | {
                "queue": held.queue,
                "source": held.delivery.source,
                "message": held.delivery.raw.decode(),
            }
            self._batch.buried.append(Bury(tag, task, orjson.dumps(letter)))
            self._work.set()

    def give_back_unknown(self, returns: list[GiveBack]) -> None:
        """Messages that the server says are held here and that nobody knows."""
        self._batch.returns.extend(returns)
        self._work.set()

    def park(self, tag: str, due: float) -> None:
        """The message is set aside until it is due."""
        if self._let_go(tag):
            self._batch.parked.append(Park(tag, due))
            self._work.set()

    def lost(self, tag: str) -> None:
        """The message was given to others, because this worker was taken for dead."""
        self._let_go(tag)
        self._settled([tag])

    def record(self, sample: Sample) -> None:
        """Keep a sample; nobody waits for it."""
        self._batch.samples.append(sample)
        self._work.set()

    def _let_go(self, tag: str) -> HeldMessage | None:
        held = self.held.pop(tag, None)
        if event := self._let_go_events.pop(tag, None):
            event.set()
        if held is not None:
            self._settling.add(tag)
            if not held.answered:
                self._free(held)
            self._end_aside(held)
        return held

    def _settled(self, tags: Iterable[str]) -> None:
        for tag in tags:
            self._settling.discard(tag)
            self._answers.pop(tag, None)

    async def run(self) -> None:
        """Carry batches for ever."""
        while True:
            await self._work.wait()
            self._carrying = asyncio.ensure_future(self._carry(*self._take()))
            # A batch under way is carried to its end, also when this is cancelled.
            await asyncio.shield(self._carrying)

    async def flush(self) -> None:
        """Carry everything that there is now."""
        if self._carrying is not None:
            await self._carrying
        while self._batch:
            await self._carry(*self._take())

    def _take(self) -> tuple[Batch, list["asyncio.Future[Stored]"]]:
        batch, self._batch = self._batch, Batch()
        waiting, self._waiting = self._waiting, []
        now = portion(len(result.value) for result in batch.results)
        now = min(now, MOST_BATCH_RESULTS)
        batch.results, self._batch.results = batch.results[:now], batch.results[now:]
        waiting, self._waiting = waiting[:now], waiting[now:]
        now = portion(len(back.raw) for back in batch.returns)
        batch.returns, self._batch.returns = batch.returns[:now], batch.returns[now:]
        if not self._batch:
            self._work.clear()
        return batch, waiting

    async def _carry(
        self, batch: Batch, waiting: list["asyncio.Future[Stored]"]
    ) -> None:
        tries = 0
        while True:
            try:
                if tries >= TRIES_TOGETHER and await self._is_reachable():
                    stored = await self._carry_results_alone(batch)
                else:
                    stored = await self.deliveries.commit(batch)
                break
            except (RedisError, OSError) as error:
                if tries == 0:
                    logger.warning(
                        "Redis away: %d results and %d acknowledgements wait (%s)",
                        len(batch.results),
                        len(batch.acks),
                        error,
                    )
                # Where a replica took over, it may not have heard of the answers.
                known = [self._answers.get(tag) for tag in batch.acks]
                again = [answer for answer in known if answer]
                batch.again = again[: portion(len(each.value) for each in again)]
                await asyncio.sleep(
                    BATCH_RETRY_SECONDS[min(tries, len(BATCH_RETRY_SECONDS) - 1)]
                )
                tries += 1
        if tries:
            logger.warning("Redis back after %d tries: the batch is through", tries)
        self._settled(batch.acks)
        self._settled(back.tag for back in batch.returns)
        self._settled(park.tag for park in batch.parked)
        for result, taken in zip(batch.results, stored, strict=True):
            if taken is Stored.FENCED:
                # Its deadline and what follows it are another worker's now.
                self.lost(result.tag)
        for future, taken in zip(waiting, stored, strict=True):
            if not future.done():
                future.set_result(taken)

    async def _is_reachable(self) -> bool:
        """Whether the servers answer; if so, one result may be at fault."""
        try:
            await self.deliveries.ping()
        except (RedisError, OSError):
            return False
        return True

    async def _carry_results_alone(self, batch: Batch) -> list[Stored]:
        """Store one result after the other, then carry the rest of the batch."""
        stored = [await self._store_alone(result) for result in batch.results]
        rest = dataclasses.replace(batch, results=[], again=[])
        rest.answered = [*batch.answered]
        rest.answered += [each.settles for each in batch.results if each.settles]
        await self.deliveries.commit(rest)
        return stored

    async def _store_alone(self, result: StoreResult) -> Stored:
        tries = 0
        while True:
            try:
                return (await self.deliveries.commit(Batch(results=[result])))[0]
            except (RedisError, OSError) as error:
                tries += await self._is_reachable()
                passing = str(error).startswith(_PASSING) or isinstance(
                    error, OutOfMemoryError
                )
                if tries >= TRIES_ALONE and not passing:
                    logger.error(
                        "Redis refuses a result of %d bytes for good: key=%s (%s)",
                        len(result.value),
                        result.key,
                        error,
                    )
                    self._answers.pop(result.tag, None)
                    return Stored.REFUSED
            await asyncio.sleep(BATCH_RETRY_SECONDS[1])
