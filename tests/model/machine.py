"""Any order of what befalls requests, on a real server, checked after every step."""

import json
import sys
import time
from typing import Any, ClassVar

from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from modelserver.store.batch import (
    SUBMITTER,
    Batch,
    Bury,
    GiveBack,
    Park,
    Stored,
    StoreResult,
)
from modelserver.store.cancelling import take_delayed, take_waiting
from modelserver.store.dead_letters import dead_letters, discard, resubmit
from modelserver.store.delivery import mark_redelivered
from modelserver.store.keys import PRIORITIES
from modelserver.store.reaps import reap
from modelserver.store.revoking import revocations
from tests.model import promises
from tests.model.ground import KEYS, MAINS, QUEUES, Ground, Worker, message
from tests.model.state import task_of
from tests.model.turns import Turns

#: Most workers at once.
MOST_WORKERS = 4
#: How long a result is kept, in seconds.
KEPT_SECONDS = 3_600
#: Far from now, in seconds.
LATER = 100_000.0

#: One of whatever there is, by its place modulo the number.
any_one = some.integers(0, 59)
a_few = some.integers(1, 4)
#: Mostly the same, so that requests meet.
queues = some.sampled_from((*QUEUES, QUEUES[0], QUEUES[0]))
places = some.sampled_from((0, 0, 0, 0, *range(len(PRIORITIES))))
rooms = some.sampled_from((1, 1, 1, 2, 3, 5, 9))


class Delivery(RuleBasedStateMachine):
    """Requests, workers and their misfortunes. ``ground`` is to be set before."""

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
        self.turns = Turns()
        self.before = self.ground.state()
        self.known: Any = None

    # Producers.

    @rule(
        queue=queues, place=places, who=some.sampled_from("abcd"), count=a_few,
        deadline=some.booleans(),
    )  # fmt: skip
    def submit(
        self, queue: str, place: int, who: str, count: int, deadline: bool
    ) -> None:
        for _ in range(count):
            due = time.time() + LATER if deadline else None
            self._put(queue, place, who, due)

    @rule(queue=queues, place=places, count=a_few)
    def submit_once_each(self, queue: str, place: int, count: int) -> None:
        for _ in range(count):
            self._put(queue, place, f"once-{self.number}", None)

    def _put(self, queue: str, place: int, who: str, deadline: float | None) -> None:
        task = self._accepted()
        if deadline is not None:
            self.promised.add(task)
        priority = PRIORITIES[place]
        self.ground.put(queue, message(task, who, priority, deadline))

    @rule(queue=queues, place=places, count=a_few, kind=some.integers(0, 3))
    def submit_plainly(self, queue: str, place: int, count: int, kind: int) -> None:
        for _ in range(count):
            task = self._accepted()
            plain = json.dumps(message(task))
            bodies = (plain, plain, f"junk {task}", f'{{"id":"{task}","headers":null}}')
            self.ground.put_plainly(KEYS.queue(queue)[place], bodies[kind])

    def _accepted(self) -> str:
        self.number += 1
        task = f"r{self.number}"
        self.accepted.add(task)
        return task

    # Workers.

    @precondition(lambda self: len(self.workers) < MOST_WORKERS)
    @rule()
    def start_worker(self) -> None:
        self.number += 1
        self.workers.append(self.ground.start_worker(f"w{self.number}"))

    @precondition(lambda self: self.workers)
    @rule(one=any_one, queue=queues, room=rooms, heard=any_one)
    def pull(self, one: int, queue: str, room: int, heard: int) -> None:
        worker = self._worker(one)
        got = self.ground.wait(worker.deliveries.pull(queue, room))
        # Now and then the reply is lost with its connection.
        if heard:
            worker.held.update({each.tag: each for each in got})
        now = self.ground.state()
        self.turns.check_pull(self.before, now, KEYS.queue(queue), room)

    @precondition(lambda self: any(worker.held for worker in self.workers))
    @rule(one=any_one, count=a_few, ok=some.booleans())
    def answer(self, one: int, count: int, ok: bool) -> None:
        worker, tags = self._holder(one, count)
        self._settle(worker, tags, ok)

    @precondition(lambda self: any(worker.held for worker in self.workers))
    @rule(one=any_one, count=a_few, ok=some.booleans())
    def die_before_acknowledging(self, one: int, count: int, ok: bool) -> None:
        worker, tags = self._holder(one, count)
        self._store(worker, Batch([self._result(worker, tag, ok) for tag in tags]))
        self._end(worker)

    @precondition(lambda self: any(worker.past for worker in self.workers))
    @rule(one=any_one, which=any_one, ok=some.booleans())
    def answer_late(self, one: int, which: int, ok: bool) -> None:
        late = [worker for worker in self.workers if worker.past]
        worker = late[one % len(late)]
        delivery = worker.past[which % len(worker.past)]
        result = self._result(worker, delivery.tag, ok, delivery.raw)
        self._store(worker, Batch([result], [delivery.tag]))

    @precondition(lambda self: any(worker.held for worker in self.workers))
    @rule(one=any_one, count=a_few, marked=some.booleans())
    def give_back(self, one: int, count: int, marked: bool) -> None:
        worker, tags = self._holder(one, count)
        held = [worker.held[tag] for tag in tags]
        returns = [
            GiveBack(d.tag, d.source, mark_redelivered(d.raw) if marked else b"")
            for d in held
        ]
        self.ground.commit(worker, Batch(returns=returns))
        worker.let_go(tags)

    @precondition(lambda self: any(worker.held for worker in self.workers))
    @rule(one=any_one, count=a_few, due=some.booleans())
    def park(self, one: int, count: int, due: bool) -> None:
        worker, tags = self._holder(one, count)
        when = time.time() - 1 if due else time.time() + LATER
        self.ground.commit(worker, Batch(parked=[Park(tag, when) for tag in tags]))
        worker.let_go(tags)

    @precondition(lambda self: any(worker.held for worker in self.workers))
    @rule(one=any_one, cut=some.integers(0, 3))
    def set_aside(self, one: int, cut: int) -> None:
        worker, tags = self._holder(one, 1)
        if not worker.held[tags[0]].raw.startswith(b"junk"):
            self._bury(worker, tags[0], whole=cut > 0)

    def _bury(self, worker: Worker, tag: str, whole: bool = True) -> None:
        delivery = worker.held[tag]
        raw, source = delivery.raw.decode(), delivery.source
        if not json.loads(raw)["headers"]:
            return
        task = task_of(raw)
        letter = {"queue": KEYS.queue_of(source), "source": source, "message": raw}
        letter |= {"reason": "tried", "at": time.time()}
        buried = [Bury(tag, task, json.dumps(letter).encode())]
        if not whole:
            self.doubled.add(task)
            self.ground.commit(worker, Batch(buried=buried))
            self._end(worker)
            return
        self.ground.commit(worker, Batch(buried=buried))
        self._settle(worker, [tag], ok=False)

    # What befalls workers.

    @precondition(lambda self: self.workers)
    @rule(one=any_one)
    def freeze(self, one: int) -> None:
        self.ground.end_lease(self._worker(one))

    @precondition(lambda self: self.workers)
    @rule(one=any_one)
    def renew_and_reconcile(self, one: int) -> None:
        worker = self._worker(one)
        self.ground.renew(worker)
        held = self.ground.wait(worker.deliveries.held())
        unknown = held - worker.held.keys()
        returns = self.ground.wait(worker.deliveries.returns(unknown))
        self.ground.commit(worker, Batch(returns=returns))
        worker.let_go([tag for tag in worker.held if tag not in held])

    @precondition(lambda self: self.workers)
    @rule(one=any_one)
    def die(self, one: int) -> None:
        self._end(self._worker(one))

    def _end(self, worker: Worker) -> None:
        self.workers.remove(worker)
        self.ground.end_lease(worker)

    @precondition(lambda self: self.workers)
    @rule(one=any_one)
    def leave(self, one: int) -> None:
        worker = self._worker(one)
        self.workers.remove(worker)
        self.ground.wait(worker.deliveries.leave())

    @precondition(lambda self: self.workers)
    @rule(one=any_one)
    def reap(self, one: int) -> None:
        worker = self._worker(one)
        reaped = self.ground.wait(reap(worker.deliveries))
        for delivery in reaped.aside:
            worker.held[delivery.tag] = delivery
            self._bury(worker, delivery.tag)

    # Time.

    @precondition(lambda self: self.before.pairs(KEYS.delayed))
    @rule(one=any_one)
    def time_passes(self, one: int) -> None:
        members = sorted(self.before.pairs(KEYS.delayed))
        passed = members[: one % len(members) + 1]
        now = time.time()
        self.ground.client.zadd(KEYS.delayed, dict.fromkeys(passed, now - 1))

    @precondition(lambda self: self.workers)
    @rule(one=any_one)
    def wake(self, one: int) -> None:
        self.ground.wait(self._worker(one).deliveries.wake())
        late = self.ground.state().pairs(KEYS.delayed).values()
        assert all(float(due) > time.time() - 0.5 for due in late), "due, not woken"

    @precondition(lambda self: self.workers and self.before.pairs(KEYS.deadlines))
    @rule(one=any_one, which=any_one)
    def deadline_passes(self, one: int, which: int) -> None:
        tasks = sorted(self.before.pairs(KEYS.deadlines))
        self.ground.client.zadd(KEYS.deadlines, {tasks[which % len(tasks)]: 1.0})
        worker = self._worker(one)
        late = self.ground.wait(worker.deliveries.overdue())
        results = [self._late(task) for task in late]
        self._store(worker, Batch(results))

    def _late(self, task: str) -> StoreResult:
        value = '{"status": "FAILURE", "result": "too late"}'
        key = KEYS.result(task)
        return StoreResult("", key, value, KEPT_SECONDS, final=True, settles=task)

    # Operators.

    @precondition(lambda self: self.before.dead())
    @rule(which=any_one)
    def resubmit(self, which: int) -> None:
        letters = dead_letters(self.ground.store)
        letter = letters[which % len(letters)]
        if '"FAILURE"' in self.final.get(letter.task, ""):
            del self.final[letter.task]
        if self.before.places(MAINS).get(letter.task):
            self.doubled.add(letter.task)
        assert resubmit(self.ground.store, letter, KEYS.result)

    @precondition(lambda self: self.before.dead())
    @rule(which=any_one)
    def discard(self, which: int) -> None:
        letters = dead_letters(self.ground.store)
        letter = letters[which % len(letters)]
        assert discard(self.ground.store, letter)
        if letter.task not in self.final and not self.before.places(MAINS).get(
            letter.task
        ):
            self.accepted.discard(letter.task)
            self.promised.discard(letter.task)

    @precondition(lambda self: self.accepted)
    @rule(which=any_one)
    def revoke(self, which: int) -> None:
        tasks = sorted(self.accepted)
        for arguments in revocations(KEYS, [tasks[which % len(tasks)]]):
            script, number, *rest = arguments
            self.ground.client.eval(script, int(number), *rest)

    @precondition(lambda self: self.workers)
    @rule(one=any_one, queue=queues, who=some.sampled_from(["", "a", "b"]))
    def cancel(self, one: int, queue: str, who: str) -> None:
        canceller = self.ground.start_worker(f"c{self.number}")

        async def take() -> None:
            async for part in take_waiting(canceller.deliveries, queue, who):
                canceller.held.update({each.tag: each for each in part})
            ours = lambda name, found: name == queue and not who  # noqa: E731
            async for part in take_delayed(canceller.deliveries, ours):
                canceller.held.update({each.tag: each for each in part})

        self.number += 1
        self.ground.wait(take())
        left = [each for main in KEYS.queue(queue) for each in self._of(main, who)]
        assert not left, f"{left} of {who!r} were not cancelled"
        self.workers.append(canceller)
        if one % 2:
            self._end(canceller)

    def _of(self, main: str, who: str) -> list[str]:
        lists = self.ground.state().lists(main)
        waiting = [each for messages in lists.values() for each in messages]
        return [each for each in waiting if not who or f'"{SUBMITTER}":"{who}"' in each]

    @rule(queue=queues, sure=any_one)
    def purge(self, queue: str, sure: int) -> None:
        if sure < 3:
            for main in KEYS.queue(queue):
                for messages in self.before.lists(main).values():
                    gone = {task_of(each) for each in messages}
                    self.accepted -= gone - self.final.keys() - self.doubled
                    self.promised -= gone
            self.ground.channel._purge(queue)

    # The server.

    @rule()
    def replicate(self) -> None:
        self.ground.take_snapshot()
        self.known = (
            set(self.accepted), set(self.promised), set(self.doubled), dict(self.final)
        )  # fmt: skip

    @precondition(lambda self: self.known)
    @rule()
    def fail_over(self) -> None:
        self.ground.fail_over()
        accepted, promised, doubled, final = self.known
        self.accepted, self.promised = set(accepted), set(promised)
        self.doubled, self.final = set(doubled), dict(final)
        self.turns = Turns()
        # The leases of those that died meanwhile are back, and end in their time.
        alive = {worker.name for worker in self.workers}
        for name in self.ground.state().listed(KEYS.workers):
            if name not in alive:
                self.ground.client.delete(KEYS.worker(name))

    # After each step, and in the end.

    @invariant()
    def promises_hold(self) -> None:
        type(self).steps += 1
        state = self.ground.state()
        promises.check_places(state, MAINS, self.accepted, self.doubled)
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
        assert not unanswered, f"never answered: {unanswered}"
        assert not state.places(MAINS), f"left: {state.places(MAINS)}"
        known = state.listed(KEYS.workers)
        assert known == ["last"], f"never forgotten: {known}"
        for main in MAINS:
            for name in ("ring", "aside", "in-ring"):
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

    def _holder(self, one: int, count: int) -> tuple[Worker, list[str]]:
        """A worker that believes to hold something, and some of that."""
        holders = [worker for worker in self.workers if worker.held]
        worker = holders[one % len(holders)]
        return worker, list(worker.held)[:count]

    def _result(
        self, worker: Worker, tag: str, ok: bool, raw: bytes = b""
    ) -> StoreResult:
        task = task_of((raw or worker.held[tag].raw).decode())
        state = "SUCCESS" if ok else "FAILURE"
        value = json.dumps({"status": state, "result": f"{worker.name} {tag}"})
        return StoreResult(tag, KEYS.result(task), value, KEPT_SECONDS, final=True)

    def _settle(self, worker: Worker, tags: list[str], ok: bool) -> None:
        """Store results, then acknowledge those that were still its own."""
        results = [self._result(worker, tag, ok) for tag in tags]
        stored = self._store(worker, Batch(results))
        pairs = zip(tags, stored, strict=True)
        own = [tag for tag, each in pairs if each is not Stored.FENCED]
        tasks = [task_of(worker.held[tag].raw.decode()) for tag in own]
        due = [task for task in tasks if task in self.promised]
        names = [KEYS.published(task) for task in tasks]
        batch = Batch(acks=own, answered=due, revoked=tasks, published=names)
        self.ground.commit(worker, batch)
        worker.let_go(tags)

    def _store(self, worker: Worker, batch: Batch) -> list[Stored]:
        """Commit, and see that each result met the right end."""
        state = self.ground.state()
        held, there = state.held(worker.name), set(state.results())
        expected = []
        for result in batch.results:
            task = result.key.removeprefix(KEYS.result(""))
            if result.tag and result.tag not in held:
                expected.append(Stored.FENCED)
            elif task in there:
                expected.append(Stored.REPEATED)
            else:
                expected.append(Stored.STORED)
                there.add(task)
        assert self.ground.commit(worker, batch) == expected
        return expected
