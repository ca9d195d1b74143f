"""Any order of what befalls requests, on a real server, checked after every step."""

import json
import time

from hypothesis import strategies as some
from hypothesis.stateful import precondition, rule

from modelserver.store.batch import (
    SUBMITTER,
    Batch,
    Bury,
    GiveBack,
    Park,
    StoreResult,
)
from modelserver.store.keys import PRIORITIES
from modelserver.store.messages.cancelling import take_delayed, take_waiting
from modelserver.store.messages.dead_letters import dead_letters, discard, resubmit
from modelserver.store.messages.delivery import mark_redelivered
from modelserver.store.messages.reaps import reap
from modelserver.store.messages.revoking import revocations
from tests.model.ground import KEYS, MAINS, QUEUES, Worker, message
from tests.model.row_steps import RowDelivery
from tests.model.stage import KEPT_SECONDS
from tests.model.state import task_of
from tests.model.turns import Turns

#: Most workers at once.
MOST_WORKERS = 4
#: Far from now, in seconds.
LATER = 100_000.0

#: One of whatever there is, by its place modulo the number.
any_one = some.integers(0, 59)
a_few = some.integers(1, 4)
#: Mostly the same, so that requests meet.
queues = some.sampled_from((*QUEUES, QUEUES[0]))
places = some.sampled_from((0, 0, 0, 0, *range(len(PRIORITIES))))
rooms = some.sampled_from((1, 1, 1, 2, 3, 5, 9))


class Delivery(RowDelivery):
    """Requests and rows, workers and their misfortunes."""

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
        # Now and then the reply is lost with its connection.
        self._pull(self._worker(one), queue, room, is_heard=heard > 0)

    @precondition(lambda self: any(worker.held for worker in self.workers))
    @rule(one=any_one, count=a_few, ok=some.booleans())
    def answer(self, one: int, count: int, ok: bool) -> None:
        worker, tags = self._holder(one, count)
        self._settle(worker, tags, ok)

    @precondition(lambda self: any(worker.held for worker in self.workers))
    @rule(one=any_one, count=a_few, ok=some.booleans())
    def die_before_acknowledging(self, one: int, count: int, ok: bool) -> None:
        worker, tags = self._holder(one, count)
        self._store(worker, self._answers(worker, tags, ok))
        self._end(worker)

    @precondition(lambda self: any(worker.past for worker in self.workers))
    @rule(one=any_one, which=any_one, ok=some.booleans())
    def answer_late(self, one: int, which: int, ok: bool) -> None:
        late = [worker for worker in self.workers if worker.past]
        worker = late[one % len(late)]
        delivery = worker.past[which % len(worker.past)]
        worker.past.remove(delivery)
        worker.held[delivery.tag] = delivery
        self._settle(worker, [delivery.tag], ok)

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
        if not worker.held[tags[0]].raw.startswith((b"junk", b'{"rows"')):
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
            if delivery.rows > 1 or delivery.raw.startswith(b'{"rows"'):
                self._settle(worker, [delivery.tag], ok=False)
            else:
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
            self.ground.channel._purge(queue)
            state = self.ground.state()
            kept = state.places(MAINS).keys() | state.results().keys() | state.dead()
            gone = self.before.places(MAINS).keys() - kept
            self.accepted -= gone
            self.promised -= gone

    # The server.

    @rule()
    def replicate(self) -> None:
        self.ground.take_snapshot()
        self.known = (
            set(self.accepted), set(self.promised), set(self.doubled), dict(self.final),
            set(self.settled), list(self.sent),
        )  # fmt: skip

    @precondition(lambda self: self.known)
    @rule()
    def fail_over(self) -> None:
        self.ground.fail_over()
        accepted, promised, doubled, final, settled, sent = self.known
        self.accepted, self.promised = set(accepted), set(promised)
        self.doubled, self.final = set(doubled), dict(final)
        self.settled, self.sent = set(settled), list(sent)
        self.turns = Turns()
        # The leases of those that died meanwhile are back, and end in their time.
        alive = {worker.name for worker in self.workers}
        for name in self.ground.state().listed(KEYS.workers):
            if name not in alive:
                self.ground.client.delete(KEYS.worker(name))
