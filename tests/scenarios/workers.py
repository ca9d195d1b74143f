"""Simulated workers: they pull requests, try them again, and tell whose fault it was.

Three ways to treat a request that failed, of which the product has the first:

- ``CARRIED``: its attempts go with it from host to host. It waits without a place,
  untried engines come first, and a fault that a second engine repeats is its own.
- ``PLACED``: as it was once. It keeps its place and its host, and the count of its
  attempts begins anew on each host.
- ``ORACLE``: knows which requests no engine can answer: tried twice, then failed.
"""

import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from random import Random

from modelserver.measured import Sample
from modelserver.values import Outcome
from tests.scenarios.engine import Request
from tests.scenarios.slots import Slot

#: A request fails after so many attempts.
MOST_ATTEMPTS = 20
#: The wait after a request's first attempt, in seconds; doubled after each further one.
FIRST_WAIT_SECONDS = 0.1
#: The longest wait between two attempts, in seconds.
LONGEST_WAIT_SECONDS = 10.0
#: A request is at fault once chance explains its failures no likelier than this.
LEAST_CHANCE = 1e-6
#: The share of requests that an engine fails at as long as nothing is known of it.
FIRST_SHARE = 0.0005
#: The attempts that the oracle gives to a request that no engine can answer.
ORACLE_ATTEMPTS = 2


class Way(Enum):
    """How workers treat a request that failed."""

    CARRIED = auto()
    PLACED = auto()
    ORACLE = auto()


@dataclass(slots=True)
class Rest:
    """A request between two attempts."""

    request: Request
    version: int = 0


class Workers:
    """The workers of all hosts, and the queues that they pull from."""

    def __init__(self, slots: dict[str, Slot], random: Random) -> None:
        self.slots, self.random = slots, random
        self.way = Way.CARRIED
        self.now = 0.0
        #: What happened, by name.
        self.counts: Counter[str] = Counter()
        #: When requests were answered, and the seconds since they had been sent.
        self.took: list[tuple[float, float]] = []
        #: By model: requests that wait for their first attempt.
        self.queues: defaultdict[str, deque[Request]] = defaultdict(deque)
        #: Requests that wait for an engine after an attempt.
        self.again: list[Request] = []
        #: Requests whose next attempt is not due yet.
        self.resting = 0
        #: By host: places held by requests between two attempts.
        self.held: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        """Requests that no engine has."""
        queued = sum(len(queue) for queue in self.queues.values())
        return queued + len(self.again) + self.resting

    # Who gets what.

    def find_engine(self, request: Request) -> Slot | None:
        """An engine that may have it now."""
        free = [slot for slot in self.slots.values() if self._may_take(slot, request)]
        here = [slot for slot in free if slot.report.host == request.host]
        if self.way is Way.PLACED:
            untried = [slot for slot in free if slot.report.id not in request.failed_at]
            free = untried or free
        elif request.failed_at:
            free = here or free
        return self.random.choice(free) if free else None

    def find_request(self, slot: Slot) -> Request | None:
        """A request for an engine; those that were tried already come first."""
        for place, request in enumerate(self.again):
            if self._may_take(slot, request):
                return self.again.pop(place)
        queue = self.queues[slot.report.model]
        return queue.popleft() if queue and self._may_take(slot, queue[0]) else None

    def _may_take(self, slot: Slot, request: Request) -> bool:
        if slot.report.model != request.model or slot.room <= 0:
            return False
        if self.way is Way.PLACED:
            host = slot.report.host
            return request.host == host or (not request.host and self._has_place(host))
        if slot.report.id not in request.failed_at:
            return True
        return not any(
            each.works
            and each.report.model == request.model
            and name not in request.failed_at
            for name, each in self.slots.items()
        )

    def _has_place(self, host: str) -> bool:
        room = sum(s.room for s in self.slots.values() if s.report.host == host)
        return room > self.held[host]

    def enqueue(self, request: Request, first: bool = False) -> None:
        """Let it wait for an engine."""
        if request.failed_at or request.host:
            self.again.append(request)
        elif first:
            self.queues[request.model].appendleft(request)
        else:
            self.queues[request.model].append(request)

    # What becomes of it.

    def begin(self, slot: Slot, request: Request) -> None:
        """An attempt begins."""
        if self.way is Way.PLACED and request.host:
            self.held[request.host] -= 1
        request.host = slot.report.host
        request.attempts += 1
        self.counts["attempts"] += 1
        request.fails = self.random.random() < slot.sim.fault.errors
        request.fails = request.fails or request.poisonous

    def call_off(self, requests: Iterable[Request]) -> None:
        """They did nothing wrong, and any host may take them."""
        for request in requests:
            request.host = ""
            if self.way is Way.PLACED:
                request.failed_at, request.against, request.attempts = {}, [], 0

    def end(self, slot: Slot, request: Request) -> tuple[Outcome, float | None]:
        """An attempt ends: how it counts, and the seconds until the next, if any."""
        if not request.fails:
            self._answered(slot, request)
            return Outcome.OK, None
        is_first = slot.report.id not in request.failed_at
        self._note_failure(slot, request)
        if self._is_own_fault(request):
            request.own_fault = True
            self.counts["own faults"] += 1
            self._withdraw(request)
            return Outcome.REPEATED, None
        if is_first:
            blamed = (slot.report.id, slot.report.incarnation, self.now)
            request.blamed.append(blamed)
        outcome = Outcome.ENGINE_FAULT if is_first else Outcome.REPEATED
        return outcome, self._wait_after(request)

    def _answered(self, slot: Slot, request: Request) -> None:
        slot.answered_at = self.now
        self.took.append((self.now, self.now - request.sent))
        slot.recent.append(None)
        request.done += 1
        self.counts["done"] += 1
        self.counts["tokens"] += request.completion
        self.counts["done twice"] += request.done > 1

    def _note_failure(self, slot: Slot, request: Request) -> None:
        self.counts["failed attempts"] += 1
        last = request.failed_at.get(slot.report.id)
        request.failed_at[slot.report.id] = self.now
        if last is None:
            slot.recent.append(request)
        if last is None or slot.answered_at > last:
            request.against.append(slot)

    def _wait_after(self, request: Request) -> float | None:
        if request.attempts >= MOST_ATTEMPTS:
            self.counts["given up"] += 1
            return None
        if self.way is Way.ORACLE:
            return 0.0
        if self.way is Way.PLACED:
            self.held[request.host] += 1
        wait = FIRST_WAIT_SECONDS * 2.0 ** (request.attempts - 1)
        return min(LONGEST_WAIT_SECONDS, wait)

    def look(self) -> None:
        """Give up the places on hosts whose engines all do not work."""
        working = {s.report.host for s in self.slots.values() if s.works}
        for request in self.again:
            if self.way is Way.PLACED and request.host and request.host not in working:
                self.held[request.host] -= 1
                self.call_off([request])

    def _is_own_fault(self, request: Request) -> bool:
        if self.way is Way.ORACLE:
            return request.poisonous and request.attempts >= ORACLE_ATTEMPTS
        chance = math.prod(self._share(slot, request) for slot in request.against)
        return len(request.against) > 1 and chance <= LEAST_CHANCE

    def _share(self, slot: Slot, besides: Request) -> float:
        """The share of other requests that an engine failed at by its own fault.

        Once every fault counted that had not proved to be a request's own.
        """
        others = [each for each in slot.recent if each is not besides]
        failed = sum(
            each is not None
            and (not each.own_fault if self.way is Way.PLACED else bool(each.done))
            for each in others
        )
        return (failed + FIRST_SHARE) / (len(others) + 1)

    def _withdraw(self, request: Request) -> None:
        """What was counted against engines was the request's own fault."""
        if self.way is not Way.CARRIED:
            return
        for name, incarnation, at in request.blamed:
            ago, nothing = self.now - at, (0, 0, 0, 0, 0)
            self.slots[name].samples.appendleft(
                Sample(name, incarnation, self.now, ago, *nothing, Outcome.WITHDRAWN)
            )
