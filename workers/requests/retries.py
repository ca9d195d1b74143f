"""What happens between two attempts of a request: who is to blame, where it goes next.

First come engines of this host that it has not been tried on, then those of other
hosts: the message goes back to its queue and says what was tried. Then all again. While
it waits for its next attempt it takes no room, so others are pulled meanwhile.
"""

import asyncio
import random
import time
from collections import defaultdict

from celery.exceptions import Reject

from modelserver.engine_protocol import EngineFault
from modelserver.errors import RequestError
from modelserver.measured import Sample
from modelserver.messaging.answers import UnsoundVectorsError, told
from modelserver.store.batch import TRIES
from modelserver.values import Outcome
from workers.delivery.courier import Courier
from workers.delivery.server_clock import ServerClock
from workers.engines.engine_slot import EngineSlot
from workers.engines.failures import FailedRequest, Place
from workers.engines.probes import Probes
from workers.engines.roster import Roster
from workers.requests.budget import RetryBudget
from workers.requests.carried_tries import from_header, to_header
from workers.requests.own_fault import FailedTries, ModelFailures
from workers.requests.work import Work

#: The wait after a request's first attempt, in seconds; doubled after each further one.
FIRST_ATTEMPT_WAIT_SECONDS = 0.1
#: The longest wait between two attempts, in seconds.
LONGEST_ATTEMPT_WAIT_SECONDS = 10.0
#: So many times a worker passes a request on to hosts whose engines are untried.
MOST_PASSES = 5
#: So long it is left to them each time, in seconds.
LEFT_SECONDS = 2.0
#: A request takes its first so many retries out of the model's budget; after that its
#: own waits are long enough.
MOST_FROM_BUDGET = 5


class Retries:
    """Lives on the loop's thread."""

    def __init__(
        self, roster: Roster, courier: Courier, clock: ServerClock, probes: Probes
    ) -> None:
        self.roster = roster
        self.courier = courier
        self.clock = clock
        self.probes = probes
        #: By model.
        self.budgets: defaultdict[str, RetryBudget] = defaultdict(RetryBudget)
        #: By model.
        self.failures: defaultdict[str, ModelFailures] = defaultdict(ModelFailures)

    def take_up(self, work: Work, header: object) -> None:
        """Go on where the message says that others stopped."""
        if header is None:
            return
        carried = from_header(header)
        work.attempts, work.passes = carried.attempts, carried.passes
        work.tries = FailedTries(self.failures[work.model], self._mark(work), carried)

    def begin(self, work: Work) -> None:
        """A request pays in for retries with its first attempt."""
        if work.tries is None:
            self.budgets[work.model].attempted()

    def _mark(self, work: Work) -> FailedRequest:
        """How engines here remember the request, if it was here before."""
        slots = self.roster.slots.values()
        found = (slot.record.find(work.task) for slot in slots)
        return next((each for each in found if each), FailedRequest(work.task))

    def failed(
        self, work: Work, slot: EngineSlot, fault: EngineFault, began: float
    ) -> Outcome:
        """An attempt has failed; returns how it counts."""
        if work.tries is None:
            mark = FailedRequest(work.task)
            work.tries = FailedTries(self.failures[work.model], mark)
        now = time.monotonic()
        work.tries.note(slot, fault, began, now, self.clock.at(now))
        if fault.way and not work.tries.is_own_fault and not self._has_untried(work):
            # From now on only what was answered in between tells.
            self.probes.after_failure(slot, work.model, work.request.kind)
        return work.tries.outcome

    def answered(self, work: Work) -> None:
        """A request that had failed is answered: its engines were at fault."""
        if work.tries is not None:
            self.failures[work.model].answered(work.tries)

    # Whose fault it is.

    def refuse_own_fault(self, work: Work, fault: EngineFault) -> None:
        """Raises RequestError for a request that no engine can answer."""
        tries = work.tries
        if tries is None or not tries.is_own_fault:
            return
        for place, at in tries.blamed.items():
            self._withdraw(place, at)
        for slot in self.roster.slots.values():
            slot.take_back(tries.mark)
        who = work.model_told
        if isinstance(fault, UnsoundVectorsError):
            texts = told(tries.bad_texts or fault.problems)
            raise RequestError(
                f"{who} gives no sound vector for {texts}, tried twice; leave it out, "
                "or shorten or change it"
            )
        raise RequestError(
            f"{who} cannot answer this request: it failed {tries.times} times in the "
            f"same way, where others were answered; the engine's words: {fault}"
        )

    def _withdraw(self, place: Place, at: float) -> None:
        """Say that an engine, of whichever host, is not to blame for what failed then.

        Where only the order is known it is the last failure before now.
        """
        engine, incarnation = place
        now, outcome = self.clock.now(), Outcome.WITHDRAWN
        ago = max(0.0, now - at) if at else 0.0
        nothing = (0, 0, 0, 0, 0)
        self.courier.record(Sample(engine, incarnation, now, ago, *nothing, outcome))

    def note_fault(self, work: Work, slot: EngineSlot, began: float) -> None:
        """An engine that fails at one request after the other is left alone."""
        tries = work.tries
        if tries is not None and tries.counts:
            shares = self.failures[work.model].shares
            self.roster.note_fault(slot, began, tries.mark, shares)

    # Where it goes next.

    def find_tried(self, work: Work) -> list[str]:
        """The engines of this host that come last."""
        if work.tries is None:
            return work.called_off
        places = work.tries.places
        slots = self.roster.slots.values()
        tried = [slot.engine.id for slot in slots if slot.record.place in places]
        return tried + work.called_off

    async def before_attempt(self, work: Work) -> None:
        """Raises Reject to pass it on, to workers whose engines are untried."""
        if not self._is_for_others(work):
            return
        if work.is_fresh:
            # Nobody else had room for it so far.
            await self._wait_aside(work, _wait_after(work.passes))
            if not self._is_for_others(work):
                return
        work.passes += 1
        self.keep(work)
        self.courier.leave(work.tag, self.clock.now() + LEFT_SECONDS)
        raise Reject("engines of other workers have not been tried", requeue=True)

    def _is_for_others(self, work: Work) -> bool:
        tries = work.tries
        if tries is None or work.passes >= MOST_PASSES:
            return False
        here = self.roster.has_untried(work.model, tries.places)
        return not here and self._has_untried(work)

    def _has_untried(self, work: Work) -> bool:
        """Whether an engine of any host may get it that has not failed at it."""
        places = work.tries.places if work.tries else set()
        others = self.roster.places_of_others(work.model)
        if work.passes < MOST_PASSES and others - places:
            return True
        return self.roster.has_untried(work.model, places)

    def keep(self, work: Work) -> None:
        """Have the message say what was tried, wherever it goes."""
        if work.tries is not None:
            carried = work.tries.to_carry(work.attempts - work.lost, work.passes)
            self.courier.amend(work.tag, {TRIES: to_header(carried)})

    async def wait(self, work: Work, fault: EngineFault) -> None:
        """Wait for the next attempt."""
        wait = max(fault.retry_after, _wait_after(work.attempts - 1))
        if work.attempts <= MOST_FROM_BUDGET:
            # What requests fail at by their own fault is no storm of the engines'.
            cost = self.failures[work.model].shares.of_engines()
            owed = self.budgets[work.model].take(time.monotonic(), cost)
            wait = max(wait, owed * random.uniform(0.5, 1.0))
        await self._wait_aside(work, wait)

    async def _wait_aside(self, work: Work, seconds: float) -> None:
        self.courier.set_aside(work.tag, True)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.courier.set_aside(work.tag, False)


def _wait_after(attempt: int) -> float:
    wait = min(LONGEST_ATTEMPT_WAIT_SECONDS, FIRST_ATTEMPT_WAIT_SECONDS * 2.0**attempt)
    # Jitter, or all requests of a broken engine come back at the same moment.
    return wait * random.uniform(0.5, 1.0)
