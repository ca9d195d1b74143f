"""Carries results, acknowledgements and samples to Redis, many in one round trip.

Whatever collects while one round trip is under way makes up the next. A task waits for
its result's round trip before Celery acknowledges it, so the result is always first.
While Redis is away nothing is lost: the batch is kept and tried until it is through.
"""

import asyncio
import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable

from celery.utils.log import get_logger
from redis.exceptions import OutOfMemoryError, RedisError

from modelserver.measured import Sample
from modelserver.store.batch import (
    Batch,
    RowAnswer,
    Stored,
    StoreResult,
    portion,
)
from modelserver.store.messages.delivery import Deliveries

logger = get_logger(__name__)

#: Most results in one round trip; bounds its size when long answers pile up.
MOST_BATCH_RESULTS = 256
#: Most answers to rows in one round trip.
MOST_BATCH_ROWS = 512
#: Answers to rows, and samples, wait for others this long, in seconds: nobody waits for
#: a single one.
GATHER_SECONDS = 0.01
#: Waits between tries to carry a batch while Redis is away, in seconds; the last one is
#: repeated.
BATCH_RETRY_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)
#: After so many tries of a batch while the server answers, each result goes alone.
TRIES_TOGETHER = 3
#: A result is refused for good after so many tries alone while the server answers.
TRIES_ALONE = 2
#: How errors begin that are the server's state and no result's fault.
_PASSING = (
    *("OOM", "BUSY", "LOADING", "MISCONF", "NOREPLICAS", "READONLY", "MASTERDOWN"),
    *("CLUSTERDOWN", "TRYAGAIN", "NOAUTH", "NOPERM", "WRONGPASS", "UNKILLABLE"),
)


class Carrier:
    """What Redis is to be told. Lives on the loop's thread."""

    def __init__(self, deliveries: Deliveries) -> None:
        self.deliveries = deliveries
        #: Told what became of the answer to a row.
        self.on_row_stored: Callable[[RowAnswer, Stored], None]
        #: Told of a message that is another worker's now.
        self.on_fenced: Callable[[str], None]
        self._batch = Batch()
        self._waiting: list[asyncio.Future[Stored]] = []
        self._work = asyncio.Event()
        self._gathering: asyncio.TimerHandle | None = None
        self._carrying: asyncio.Task[None] | None = None
        self._settling: set[str] = set()
        #: Answers by tag, stored or on their way there, until the tag is settled.
        self._answers: dict[str, StoreResult] = {}
        #: The same of rows, by the tag of their bundle.
        self._row_answers: defaultdict[str, list[RowAnswer]] = defaultdict(list)

    def store(self, result: StoreResult) -> "asyncio.Future[Stored]":
        """Store a result; the future says what became of it."""
        future: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        if result.final and result.tag:
            self._answers[result.tag] = result
        self._batch.results.append(result)
        self._waiting.append(future)
        self._work.set()
        return future

    def answer_row(self, answer: RowAnswer) -> None:
        """Store the answer to a row; ``on_row_stored`` hears what became of it."""
        self._batch.rows.append(answer)
        self._row_answers[answer.tag].append(answer)
        self._gather()

    def settle(self, task: str, result: StoreResult) -> "asyncio.Future[Stored]":
        """Answer a request whose message is elsewhere, unless it is answered."""
        return self.store(dataclasses.replace(result, settles=task))

    def forget_revoked(self, tasks: Iterable[str]) -> None:
        """These are settled, and nobody need know any more that they were revoked."""
        self._batch.revoked.extend(tasks)
        self._work.set()

    def record(self, sample: Sample) -> None:
        """Keep a sample; nobody waits for it."""
        self._batch.samples.append(sample)
        self._gather()

    def _gather(self) -> None:
        """Begin to carry in a moment, unless it begins sooner."""
        if self._gathering is None and not self._work.is_set():
            loop = asyncio.get_running_loop()
            self._gathering = loop.call_later(GATHER_SECONDS, self._gathered)

    def _gathered(self) -> None:
        self._gathering = None
        self._work.set()

    def _settled(self, tags: Iterable[str]) -> None:
        for tag in tags:
            self._settling.discard(tag)
            self._answers.pop(tag, None)
            self._row_answers.pop(tag, None)

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
        now = portion(len(answer.value) for answer in batch.rows)
        now = min(now, MOST_BATCH_ROWS)
        batch.rows, self._batch.rows = batch.rows[:now], batch.rows[now:]
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
                        len(batch.results) + len(batch.rows),
                        len(batch.acks),
                        error,
                    )
                # Where a replica took over, it may not have heard of the answers.
                known = [self._answers.get(tag) for tag in batch.acks]
                again = [answer for answer in known if answer]
                batch.again = again[: portion(len(each.value) for each in again)]
                rows = [
                    row for tag in batch.acks for row in self._row_answers.get(tag, ())
                ]
                batch.rows_again = rows[: portion(len(each.value) for each in rows)]
                await asyncio.sleep(
                    BATCH_RETRY_SECONDS[min(tries, len(BATCH_RETRY_SECONDS) - 1)]
                )
                tries += 1
        if tries:
            logger.warning("Redis back after %d tries: the batch is through", tries)
        self._settled(batch.acks)
        self._settled(back.tag for back in batch.returns)
        self._settled(park.tag for park in batch.parked)
        self._settled(split.tag for split in batch.splits if not split.rest)
        of_rows = stored[len(batch.results) :]
        del stored[len(batch.results) :]
        for answer, taken in zip(batch.rows, of_rows, strict=True):
            self.on_row_stored(answer, taken)
        for result, taken in zip(batch.results, stored, strict=True):
            if taken is Stored.FENCED:
                # Its deadline and what follows it are another worker's now.
                self.on_fenced(result.tag)
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
        stored = [
            *[await self._store_alone(Batch(results=[each])) for each in batch.results],
            *[await self._store_alone(Batch(rows=[each])) for each in batch.rows],
        ]
        rest = dataclasses.replace(batch, results=[], rows=[], again=[], rows_again=[])
        rest.answered = [*batch.answered]
        rest.answered += [each.settles for each in batch.results if each.settles]
        await self.deliveries.commit(rest)
        return stored

    async def _store_alone(self, batch: Batch) -> Stored:
        answers: list[StoreResult | RowAnswer] = [*batch.results, *batch.rows]
        tries, result = 0, answers[0]
        while True:
            try:
                return (await self.deliveries.commit(batch))[0]
            except (RedisError, OSError) as error:
                tries += await self._is_reachable()
                passing = str(error).startswith(_PASSING) or isinstance(
                    error, OutOfMemoryError
                )
                if tries >= TRIES_ALONE and not passing:
                    logger.error(
                        "Redis refuses a result of %d bytes for good: tag=%s (%s)",
                        len(result.value),
                        result.tag,
                        error,
                    )
                    self._answers.pop(result.tag, None)
                    self._row_answers.pop(result.tag, None)
                    return Stored.REFUSED
            await asyncio.sleep(BATCH_RETRY_SECONDS[1])
