"""What a worker does with messages and results: pull, store, acknowledge, give back.

A message is in exactly one place at any time: a queue's list, the hash of what one
worker holds, or the set of what is not due yet; every move between them is one script.
A result is stored only while its delivery is still the worker's own, so the late answer
of a worker that was taken for dead is refused.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import orjson
from redis.asyncio import Redis

from modelserver.measured import Sample
from modelserver.store.batch import (
    MOST_BYTES,
    Batch,
    Delivery,
    GiveBack,
    Renewal,
    Stored,
    StoreResult,
)
from modelserver.store.fleet.measurements import CUT_OFF, pack_sample
from modelserver.store.histograms import FIRST_TOKEN, TOOK, WAITED
from modelserver.store.keys import SAMPLES_KEPT, SAMPLES_SECONDS, Keys
from modelserver.store.scripts import atomic as scripts
from modelserver.store.scripts import queues as queue_scripts
from modelserver.store.scripts.runs import (
    SPLIT,
    add_bit_look,
    add_row_answers,
    rows_stored,
)
from modelserver.store.scripts.state import ANY_COMMAND, RECORD
from modelserver.values import Outcome, split_engine_id

#: Most messages that one script puts into their lists when they are due.
MOST_WOKEN = 512
#: The same in bytes, about.
MOST_WOKEN_BYTES = 4_000_000


class Deliveries:
    """One worker's messages in Redis. ``worker`` is unique to the process's life.

    ``results`` is a server of its own for results, where the fleet has one: then only
    the first result of a request counts, while a late one cannot be told by its
    delivery.
    """

    def __init__(
        self, client: Redis, keys: Keys, worker: str, results: Redis | None = None
    ) -> None:
        self.client = client
        self.results = results
        self.keys = keys
        self.worker = worker
        #: The key of what this worker holds.
        self.unacked = keys.unacked(worker)
        self._pulls = 0

    async def pull(
        self, queue: str, room: int, before: str = "", kept: int = 0
    ) -> list[Delivery]:
        """Take up to ``room`` messages of one queue, most urgent first.

        Those of the queue ``before``, if one is named, come before all of them. Filler,
        the least urgent, leaves ``kept`` of the room.
        """
        lists = self.keys.queue(before) if before else []
        lists += self.keys.queue(queue)
        flat = await _bytes(
            self.client.eval(
                queue_scripts.PULL,
                3 + len(lists),
                self.unacked,
                self.keys.tags,
                self.keys.workers,
                *lists,
                str(room),
                self.next_pull(),
                str(MOST_BYTES),
                self.worker,
                str(kept),
            )
        )
        return [
            Delivery(flat[i].decode(), flat[i + 1].decode(), flat[i + 2])
            for i in range(0, len(flat), 3)
        ]

    def next_pull(self) -> str:
        """The worker's own number of a pull, a part of the tags of its deliveries."""
        self._pulls += 1
        return str(self._pulls)

    async def begin_trial(self, tag: str) -> None:
        """Say which delivery runs under suspicion, before it can kill this worker."""
        await self.client.eval(
            ANY_COMMAND, 0, "SET", self.keys.trial(self.worker), tag, "EX", "86400"
        )

    async def end_trial(self) -> None:
        """No delivery is under suspicion any more."""
        await self.client.delete(self.keys.trial(self.worker))

    async def ping(self) -> None:
        """Ask the servers for an answer. Raises where one gives none."""
        for client in (self.client, self.results):
            if client is not None:
                await client.ping()

    async def commit(self, batch: Batch) -> list["Stored"]:
        """Carry out one batch; says what became of each result, then of each row.

        Safe to repeat after a lost connection: a result that the first try stored is
        refused the second time, and nothing is given back twice.
        """
        pipe = self.client.pipeline(transaction=False)
        target = self.results.pipeline(transaction=False) if self.results else pipe
        if results := batch.results + batch.again:
            self._add_results(target, results)
        apart = await target.execute() if target is not pipe else []
        first = len(pipe.command_stack)
        rows = batch.rows + batch.rows_again
        places = add_row_answers(pipe, self.keys, self.unacked, rows)
        self._add_rest(pipe, batch)
        replies = await pipe.execute()
        stored: list[int] = []
        if batch.results:
            stored += (apart or replies)[0][: len(batch.results)]
        stored += rows_stored(replies[first:], places)[: len(batch.rows)]
        return [Stored(reply) for reply in stored]

    def _add_rest(self, pipe: Any, batch: Batch) -> None:
        for bury in batch.buried:
            keys = (self.unacked, self.keys.dead)
            pipe.eval(scripts.BURY, 2, *keys, bury.tag, bury.task, bury.letter)
        settled = [result.settles for result in batch.results if result.settles]
        if settled or batch.answered:
            pipe.zrem(self.keys.deadlines, *settled, *batch.answered)
        if batch.acks:
            pipe.hdel(self.unacked, *batch.acks)
        if batch.revoked:
            pipe.zrem(self.keys.revoked, *batch.revoked)
        if batch.published:
            pipe.unlink(*batch.published)
        for split in batch.splits:
            keys = (self.unacked, split.source)
            values = (split.tag, self._bell(split.source), split.before, split.rest)
            pipe.eval(SPLIT, 2, *keys, *values, *reversed(split.messages))
        for back in batch.returns:
            self._add_return(pipe, back)
        for park in batch.parked:
            pipe.eval(
                scripts.PARK, 2, self.unacked, self.keys.delayed, park.tag, park.due
            )
        by_engine: defaultdict[str, list[Sample]] = defaultdict(list)
        for sample in batch.samples:
            by_engine[sample.engine].append(sample)
        for engine, samples in by_engine.items():
            self._add_samples(pipe, engine, samples)

    def _add_results(self, pipe: Any, results: list[StoreResult]) -> None:
        keys = [result.key for result in results]
        arguments: list[Any] = []
        for result in results:
            tag = "" if self.results else result.tag
            arguments += (tag, result.value, result.seconds)
            arguments += (int(result.final), int(result.by_notice))
        pipe.eval(
            scripts.STORE,
            2 + len(keys),
            self.unacked,
            self.keys.answers,
            *keys,
            *arguments,
        )

    def _add_samples(self, pipe: Any, engine: str, samples: list[Sample]) -> None:
        totals: Counter[str] = Counter(sample.outcome.value for sample in samples)
        totals["prompt_tokens"] = sum(sample.prompt_tokens for sample in samples)
        totals["completion_tokens"] = sum(
            sample.completion_tokens for sample in samples
        )
        if cut_off := sum(sample.cut_off for sample in samples):
            totals[CUT_OFF] = cut_off
        totals.update(TOOK.count(s.seconds for s in samples if s.outcome is Outcome.OK))
        of_model = _count_of_model(samples)
        pipe.eval(
            RECORD,
            3,
            self.keys.samples(engine),
            self.keys.counters(engine),
            self.keys.model_times(split_engine_id(engine)[0]),
            SAMPLES_KEPT,
            SAMPLES_SECONDS,
            len(totals) + len(of_model),
            len(of_model),
            *[part for pair in (*totals.items(), *of_model.items()) for part in pair],
            *[orjson.dumps(pack_sample(sample)) for sample in samples[-SAMPLES_KEPT:]],
        )

    def _add_return(self, pipe: Any, back: GiveBack) -> None:
        bell = self._bell(back.source)
        pipe.eval(
            scripts.GIVE_BACK,
            2,
            self.unacked,
            back.source,
            back.tag,
            back.raw,
            bell,
        )

    def _bell(self, source: str) -> str:
        return self.keys.bell(self.keys.queue_of(source))

    async def renew(self, report: bytes, seconds: float) -> Renewal:
        """Renew this worker's lease, whose value is its report."""
        milliseconds = int(seconds * 1000)
        stood, whole, micros, revoked = await _bytes(
            self.client.eval(
                scripts.RENEW,
                3,
                self.keys.worker(self.worker),
                self.keys.workers,
                self.keys.revoked,
                report,
                str(milliseconds),
                self.worker,
            )
        )
        return Renewal(int(whole) + int(micros) / 1e6, not stood, revoked)

    async def revoked(self, tasks: Sequence[str]) -> frozenset[str]:
        """Those of these tasks that are noted as revoked."""
        scores: list[float | None] = await _bytes(
            self.client.zmscore(self.keys.revoked, list(tasks))
        )
        pairs = zip(tasks, scores, strict=True)
        return frozenset(task for task, score in pairs if score is not None)

    async def leave(self) -> None:
        """End the lease at once; what is still held is for others to reap."""
        lease = self.keys.worker(self.worker)
        pipe = self.client.pipeline(transaction=False)
        pipe.delete(lease, self.keys.trial(self.worker))
        pipe.eval(
            scripts.FORGET, 3, lease, self.unacked, self.keys.workers, self.worker
        )
        await pipe.execute()

    async def held(self) -> frozenset[str]:
        """Tags of what this worker holds by the server's account.

        Asked together with a write, which a demoted primary refuses: what it says may
        be out of date.
        """
        keys = (self.keys.workers, self.unacked)
        tags = await _bytes(self.client.eval(scripts.HELD, 2, *keys, self.worker))
        return frozenset(tag.decode() for tag in tags)

    async def returns(self, tags: Iterable[str]) -> list[GiveBack]:
        """What to give back for messages of which only the server knows.

        A pull whose reply was lost with its connection leaves such messages behind, and
        so does a failover that lost their acknowledgement.
        """
        if not (names := sorted(tags)):
            return []
        values: list[bytes | None] = await _bytes(
            self.client.hmget(self.unacked, names)
        )
        return [
            GiveBack(tag, value.partition(b"\n")[0].decode())
            for tag, value in zip(names, values, strict=True)
            if value is not None
        ]

    async def answered(self, keys: Sequence[str]) -> list[bool]:
        """Of each key, whether a final result stands there."""
        pipe = (self.results or self.client).pipeline(transaction=False)
        for key in keys:
            pipe.getrange(key, 0, 24)
        heads: list[bytes] = await pipe.execute()
        finals = (b'"SUCCESS"', b'"FAILURE"', b'"REVOKED"')
        return [any(final in head for final in finals) for head in heads]

    async def look_at_rows(
        self, run: tuple[str, int], numbers: Sequence[int]
    ) -> tuple[list[int], bool]:
        """Those rows of a run's round that are answered; whether it is cancelled."""
        pipe = self.client.pipeline(transaction=False)
        order = add_bit_look(pipe, self.keys.run(*run, "done"), numbers)
        pipe.exists(self.keys.run(*run, "cancelled"))
        *found, cancelled = await pipe.execute()
        pairs = zip(order, chain.from_iterable(found), strict=True)
        return [number for number, bit in pairs if bit], bool(cancelled)

    async def find_cancelled(
        self, runs: Sequence[tuple[str, int]]
    ) -> set[tuple[str, int]]:
        """Those rounds of runs that are cancelled."""
        keys = [self.keys.run(*run, "cancelled") for run in runs]
        there: list[bytes | None] = await _bytes(self.client.mget(keys))
        return {run for run, mark in zip(runs, there, strict=True) if mark}

    async def overdue(self, most: int = 1_000) -> list[str]:
        """Unanswered requests whose deadline has passed, by this server's clock."""
        whole, micros = await self.client.time()
        due: list[bytes] = await _bytes(
            self.client.zrangebyscore(
                self.keys.deadlines, "-inf", whole + micros / 1e6, start=0, num=most
            )
        )
        return [task.decode() for task in due]

    async def wake(self) -> int:
        """Put all messages that are due into their lists; returns how many."""
        total, moved = 0, 1
        most = (str(MOST_WOKEN), str(MOST_WOKEN_BYTES))
        while moved:
            reply = self.client.eval(scripts.WAKE, 1, self.keys.delayed, *most)
            moved = int(await _bytes(reply))
            if moved and not total:
                # Workers hear every bell, and only the script knows the queues.
                await self.client.publish(self.keys.bell(""), "1")
            total += moved
        return total


def _count_of_model(samples: Iterable[Sample]) -> Counter[str]:
    """What the samples add to what is counted of their model, whose engines may go."""
    waited = [s.waited_seconds for s in samples if s.waited_seconds is not None]
    first = [s.first_token_seconds for s in samples]
    found = WAITED.count(waited) + FIRST_TOKEN.count(s for s in first if s is not None)
    if cut_off := sum(sample.cut_off for sample in samples):
        found[CUT_OFF] = cut_off
    return found


async def _bytes(reply: Any) -> Any:
    """A reply of a client that decodes nothing: redis-py's types leave that open."""
    return await reply


def mark_redelivered(raw: bytes) -> bytes:
    """The message with kombu's ``redelivered`` set.

    What is no message stays as it is: the intake drops it.
    """
    try:
        message = orjson.loads(raw)
        if "body" in message:
            message.setdefault("properties", {})
        message["properties"].setdefault("delivery_info", {})["redelivered"] = True
    except (ValueError, KeyError, TypeError, AttributeError):
        return raw
    return orjson.dumps(message)
