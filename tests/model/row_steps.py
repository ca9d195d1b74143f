"""What befalls rows that travel in bundles."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import strategies as some
from hypothesis.stateful import precondition, rule
from redis.exceptions import ResponseError

from modelserver.messaging.bundles import BundleHead, read_bundle, write_bundle
from modelserver.messaging.wire import COMPLETE
from modelserver.store.batch import Batch, Split
from modelserver.store.runs.feeding import (
    SentBundle,
    add_send,
    cancel_round,
    forget_answers,
    read_answers_since,
    read_round,
)
from tests.model.ground import KEYS, QUEUES, Worker
from tests.model.stage import Stage
from tests.model.state import row_task

#: The runs whose rows travel, all on one queue.
RUNS = ("b1", "b2")
QUEUE = QUEUES[1]
#: Room for all that waits.
LARGE_ROOM = 1_000
#: What the message of a bundle begins with.
BUNDLE = '{"rows"'

any_one = some.integers(0, 59)
runs = some.sampled_from(RUNS)
sizes = some.lists(some.integers(1, 6), min_size=1, max_size=3)


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent together."""

    run: str
    round: int
    place: int
    submitter: str
    bundles: tuple[SentBundle, ...]


class RowDelivery(Stage):
    """Rows, sent in bundles, answered one by one, settled by their runs."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Sent] = []

    # Runs.

    @rule(run=runs, place=some.sampled_from((0, 0, 2)), who=runs, sizes=sizes)
    def send_rows(self, run: str, place: int, who: str, sizes: list[int]) -> None:
        self._send_new(run, place, who, sizes)

    def _send_new(self, run: str, place: int, who: str, sizes: list[int]) -> None:
        number = read_round(self.ground.store, run, begin=True)
        bundles = []
        for size in sizes:
            rows = tuple(range(self.number, self.number + size))
            self.number += size
            self.accepted |= {row_task(run, number, row) for row in rows}
            head = BundleHead(run, number, COMPLETE, {}, who)
            message = write_bundle(head, [b'[%d,"a"]' % row for row in rows])
            bundles.append(SentBundle(message, rows))
        sent = Sent(run, number, place, who, tuple(bundles))
        self.sent.append(sent)
        assert self._send(sent) == []

    def _send(self, sent: Sent) -> list[list[int]]:
        """Send it; the rows of each bundle that was refused, after its place."""
        with self.ground.store.client.pipeline(transaction=False) as pipe:
            run, place = (sent.run, sent.round), (QUEUE, sent.place)
            add_send(pipe, self.ground.store, run, place, sent.submitter, sent.bundles)
            (refused,) = pipe.execute()
        return [list(map(int, each)) for each in refused]

    @precondition(lambda self: self.sent)
    @rule(which=any_one)
    def send_again(self, which: int) -> None:
        sent = self.sent[which % len(self.sent)]
        if KEYS.run(sent.run, sent.round, "cancelled") in self.before.values:
            with pytest.raises(ResponseError, match="CANCELLED"):
                self._send(sent)
            return
        bundles = enumerate(sent.bundles)
        known = [[place, *bundle.numbers] for place, bundle in bundles]
        assert self._send(sent) == known, "rows were sent twice"

    @precondition(lambda self: self.sent)
    @rule(which=any_one)
    def cancel_run(self, which: int) -> None:
        sent = self.sent[which % len(self.sent)]
        cancel_round(self.ground.store, sent.run, sent.round)

    @precondition(lambda self: self.before.row_answers())
    @rule(run=runs, count=some.integers(1, 9))
    def settle_answers(self, run: str, count: int) -> None:
        if not (number := read_round(self.ground.store, run)):
            return
        found = read_answers_since(self.ground.store, run, ["0-0"] * number, 0)[:count]
        entries = [(each, entry) for each, entry, _, _ in found]
        forget_answers(self.ground.store, run, entries)
        tasks = {row_task(run, each, row) for each, _, row, _ in found}
        self.settled |= tasks
        self.final = {k: v for k, v in self.final.items() if k not in tasks}

    # Workers.

    @precondition(lambda self: self.workers and self._is_row_waiting())
    @rule(one=any_one, room=some.integers(1, 9))
    def pull_rows(self, one: int, room: int) -> None:
        self._pull(self._worker(one), QUEUE, room, is_heard=True)

    def _is_row_waiting(self) -> bool:
        lists = [self.before.lists(main) for main in KEYS.queue(QUEUE)]
        waiting = [each for some in lists for found in some.values() for each in found]
        return any(each.startswith(BUNDLE) for each in waiting)

    @precondition(lambda self: self.workers)
    @rule(one=any_one, first=some.integers(0, 3), count=some.integers(1, 4))
    def answer_some_rows(self, one: int, first: int, count: int) -> None:
        worker, tag = self._bundle(one)
        rows = self._rows(worker, tag, ok=True)[first : first + count]
        self._store(worker, Batch(rows=rows))

    @precondition(lambda self: self.workers)
    @rule(one=any_one, stay=some.integers(0, 3), again=some.booleans())
    def split(self, one: int, stay: int, again: bool) -> None:
        worker, tag = self._bundle(one)
        held = worker.held[tag]
        bundle = read_bundle(held.raw)
        assert bundle
        stays, goes = bundle.rows[:stay], bundle.rows[stay:]
        if not goes:
            return
        rest = bundle.with_rows(stays) if stays else b""
        messages = tuple(bundle.with_rows([row]) for row in goes)
        part = Split(tag, held.source, len(bundle.rows), rest, messages)
        for _ in range(1 + again):  # A reply that was lost has it sent once more.
            self.ground.commit(worker, Batch(splits=[part]))
        if rest:
            worker.held[tag] = replace(held, raw=rest)
        else:
            worker.let_go([tag])

    def _bundles(self) -> list[tuple[Worker, str]]:
        """What workers believe to hold of bundles."""
        return [
            (worker, tag)
            for worker in self.workers
            for tag, held in worker.held.items()
            if held.raw.startswith(BUNDLE.encode())
        ]

    def _bundle(self, one: int) -> tuple[Worker, str]:
        """One that a worker believes to hold; it takes one if there is none."""
        if not self._bundles():
            self._send_new(RUNS[0], 0, RUNS[0], [4])
            self.before = self.ground.state()
            self._pull(self._worker(one), QUEUE, LARGE_ROOM, is_heard=True)
        held = self._bundles()
        return held[one % len(held)]
