"""What the steps of the model share: its memory, its checks and its end."""

import json
import sys
from typing import Any, ClassVar

from hypothesis.stateful import RuleBasedStateMachine, invariant

from modelserver.messaging.bundles import answer_rows, read_bundle
from modelserver.store.batch import Batch, RowAnswer, Stored, StoreResult
from modelserver.store.messages.reaps import reap
from tests.model import promises
from tests.model.ground import KEYS, MAINS, QUEUES, Ground, Worker
from tests.model.state import row_task, task_of
from tests.model.turns import Turns

#: How long a result is kept, in seconds.
KEPT_SECONDS = 3_600


class Stage(RuleBasedStateMachine):
    """What is expected of the server. ``ground`` is to be set before.

    Does not take a step by itself.
    """

    ground: ClassVar[Ground]
    #: Steps of all runs.
    steps: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.ground.clear()
        self.number = 0
        self.workers: list[Worker] = []
        self.accepted: set[str] = set()
        #: Accepted with a deadline.
        self.promised: set[str] = set()
        #: Given to a queue by an operator while a worker may have it, too.
        self.doubled: set[str] = set()
        self.final: dict[str, str] = {}
        #: Rows whose answers their run has written down, and had forgotten.
        self.settled: set[str] = set()
        self.turns = Turns()
        self.before = self.ground.state()
        self.known: Any = None

    # After each step, and in the end.

    @invariant()
    def promises_hold(self) -> None:
        type(self).steps += 1
        state = self.ground.state()
        promises.check_places(state, MAINS, self.accepted, self.doubled, self.settled)
        promises.check_settled(state, self.settled)
        promises.check_answers(state, self.final)
        promises.check_books(state, MAINS)
        promises.check_reapable(state)
        promises.check_deadlines(state, MAINS, self.promised)
        for queue in QUEUES:
            promises.check_depth(state, KEYS.queue(queue), self.ground.depth(queue))
        self.turns.forget_empty(state, MAINS)
        self.final = state.results()
        self.before = state

    def teardown(self) -> None:
        """With one live worker and time, every request is answered."""
        if sys.exc_info()[0]:
            return
        for worker in list(self.workers):
            self._end(worker)
        last = self.ground.start_worker("last")
        self.workers.append(last)
        for _ in range(5):
            self._settle_all(last)
        state = self.ground.state()
        unanswered = self.accepted - state.results().keys() - state.dead()
        unanswered -= self.settled
        assert not unanswered, f"never answered: {unanswered}"
        assert not state.places(MAINS), f"left: {state.places(MAINS)}"
        known = state.listed(KEYS.workers)
        assert known == ["last"], f"never forgotten: {known}"
        for main in MAINS:
            for name in ("ring", "aside", "in-ring", "rows", "debts"):
                assert state.beside(main, name) not in state.values

    def _settle_all(self, last: Worker) -> None:
        members = self.ground.state().pairs(KEYS.delayed)
        if members:
            self.ground.client.zadd(KEYS.delayed, dict.fromkeys(members, 1.0))
        self.ground.wait(last.deliveries.wake())
        for delivery in self.ground.wait(reap(last.deliveries)).aside:
            last.held[delivery.tag] = delivery
        for queue in QUEUES:
            while got := self.ground.wait(last.deliveries.pull(queue, 16)):
                last.held.update({each.tag: each for each in got})
        tags = list(last.held)
        self._settle(last, tags, ok=True)

    # What the steps share.

    def _worker(self, one: int) -> Worker:
        return self.workers[one % len(self.workers)]

    def _pull(self, worker: Worker, queue: str, room: int, is_heard: bool) -> None:
        got = self.ground.wait(worker.deliveries.pull(queue, room))
        if is_heard:
            worker.held.update({each.tag: each for each in got})
        now = self.ground.state()
        self.turns.check_pull(self.before, now, KEYS.queue(queue), room)

    def _holder(self, one: int, count: int) -> tuple[Worker, list[str]]:
        """A worker that believes to hold something, and some of that."""
        holders = [worker for worker in self.workers if worker.held]
        worker = holders[one % len(holders)]
        return worker, list(worker.held)[:count]

    def _result(self, worker: Worker, tag: str, ok: bool) -> StoreResult:
        task = task_of(worker.held[tag].raw.decode())
        state = "SUCCESS" if ok else "FAILURE"
        value = json.dumps({"status": state, "result": f"{worker.name} {tag}"})
        return StoreResult(tag, KEYS.result(task), value, KEPT_SECONDS, final=True)

    def _answers(self, worker: Worker, tags: list[str], ok: bool) -> Batch:
        """Answers to all that is asked under these tags."""
        batch = Batch()
        for tag in tags:
            if rows := self._rows(worker, tag, ok):
                batch.rows += rows
            else:
                batch.results.append(self._result(worker, tag, ok))
        return batch

    def _rows(self, worker: Worker, tag: str, ok: bool) -> list[RowAnswer]:
        """Answers to the rows of a bundle; none for another message."""
        bundle = read_bundle(worker.held[tag].raw)
        if bundle is None:
            return []
        sign = "+" if ok else "-"
        return answer_rows(bundle, tag, f'{sign}"{worker.name} {tag}"'.encode())

    def _settle(self, worker: Worker, tags: list[str], ok: bool) -> None:
        """Store answers, then acknowledge those that were still its own."""
        answers = self._answers(worker, tags, ok)
        stored = self._store(worker, answers)
        given = [each.tag for each in (*answers.results, *answers.rows)]
        pairs = zip(given, stored, strict=True)
        own = {tag: None for tag, each in pairs if each is not Stored.FENCED}
        plain = {each.tag for each in answers.results} & own.keys()
        tasks = [task_of(worker.held[tag].raw.decode()) for tag in plain]
        due = [task for task in tasks if task in self.promised]
        names = [KEYS.published(task) for task in tasks]
        batch = Batch(acks=[*own], answered=due, revoked=tasks, published=names)
        self.ground.commit(worker, batch)
        worker.let_go(tags)

    def _store(self, worker: Worker, batch: Batch) -> list[Stored]:
        """Commit, and see that each result met the right end."""
        state = self.ground.state()
        held, there = state.held(worker.name), set(state.results()) | self.settled
        expected = []
        named = [(x.tag, x.key.removeprefix(KEYS.result(""))) for x in batch.results]
        named += [(x.tag, row_task(x.run, x.round, x.number)) for x in batch.rows]
        for tag, task in named:
            if tag and tag not in held:
                expected.append(Stored.FENCED)
            elif task in there:
                expected.append(Stored.REPEATED)
            else:
                expected.append(Stored.STORED)
                there.add(task)
        assert self.ground.commit(worker, batch) == expected
        return expected
