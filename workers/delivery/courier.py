"""The messages that this worker holds, and what is to become of each of them.

What is settled here makes room at once; Redis hears of it with the next batch.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import orjson
from celery.exceptions import BackendError
from celery.utils.log import get_logger
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from modelserver.store.batch import (
    FAULTS,
    Bury,
    Delivery,
    GiveBack,
    Park,
    Split,
)
from modelserver.store.messages.delivery import Deliveries, mark_redelivered
from workers.delivery.carrier import Carrier
from workers.delivery.held_message import HeldMessage

logger = get_logger(__name__)

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


class Courier(Carrier):
    """The messages that this worker holds, and what Redis is to be told about them.

    Lives on the loop's thread.
    """

    def __init__(self, deliveries: Deliveries) -> None:
        super().__init__(deliveries)
        #: By tag.
        self.held: dict[str, HeldMessage] = {}
        #: Rows of bundles that are under way, by a tag of their own.
        self.rows: dict[str, HeldMessage] = {}
        #: By queue: messages that are held and not answered yet.
        self.active: Counter[str] = Counter()
        #: Called when a message is let go, which makes room for another.
        self.on_freed: Callable[[], None] = lambda: None
        self.on_fenced = self.lost
        #: How many requests are set aside, and their bytes.
        self.aside, self.aside_bytes = 0, 0
        #: By queue: when a message was last passed on in it, monotonic.
        self._passed_on_at: dict[str, float] = {}
        self._let_go_events: dict[str, asyncio.Event] = {}

    def knows(self) -> frozenset[str]:
        """Tags that are held, or whose settling has not reached the server yet."""
        return frozenset(self.held) | self._settling

    def took(self, queue: str, delivery: Delivery) -> None:
        """Hold a message that was pulled."""
        held = HeldMessage(queue, delivery, rows=delivery.rows)
        self.held[delivery.tag] = held
        self.active[queue] += held.rows

    def hold_rows(
        self, tag: str, rows: Iterable[str], remake: Callable[[], bytes]
    ) -> None:
        """From now on each of these rows takes room, in place of their bundle."""
        if held := self.held.get(tag):
            self.active[held.queue] -= held.rows
            held.rows, held.remake = 0, remake
            for row in rows:
                self.rows[row] = HeldMessage(held.queue, held.delivery)
                self.active[held.queue] += 1
            self.on_freed()

    def let_row_go(self, row: str) -> dict[str, Any]:
        """The row is under way no longer; what it was tried on, as headers."""
        held = self.rows.pop(row, None)
        if held is None:
            return {}
        if not held.answered:
            self._free(held)
        self._end_aside(held)
        if held.is_passed_on:
            self._stand_back(held.queue)
        return held.amendments

    def _find(self, tag: str) -> HeldMessage | None:
        return self.held.get(tag) or self.rows.get(tag)

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
        held = self._find(tag)
        if held is not None and not held.answered:
            held.answered = True
            self._free(held)

    def is_filler(self, tag: str) -> bool:
        """Whether the message is of the least urgent priority."""
        held = self._find(tag)
        return held is not None and self.deliveries.keys.is_of_filler(
            held.delivery.source
        )

    def size_of(self, tag: str) -> int:
        """The bytes of a message that is held, about."""
        held = self._find(tag)
        return held.size if held else 0

    def set_aside(self, tag: str, aside: bool) -> None:
        """Whether the message takes no room for now, within bounds."""
        held = self._find(tag)
        if held is None or held.answered or held.aside == aside:
            return
        size = held.size
        if not aside:
            self._end_aside(held)
            self.active[held.queue] += held.rows
        elif self.aside < MOST_ASIDE and self.aside_bytes + size <= MOST_ASIDE_BYTES:
            self._free(held)
            self.aside += 1
            self.aside_bytes += size
            held.aside = True

    def _end_aside(self, held: HeldMessage) -> None:
        if held.aside:
            self.aside -= 1
            self.aside_bytes -= held.size
            held.aside = False

    def pass_on(self, tag: str) -> None:
        """When this message goes back, let another worker have it."""
        if held := self._find(tag):
            held.is_passed_on = True

    def leave(self, tag: str, until: float) -> None:
        """When this message goes back, it is for other workers until then.

        ``until`` is by the server's clock, in seconds.
        """
        if held := self._find(tag):
            held.leave(self.deliveries.worker, until)

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
            self.active[held.queue] -= held.rows
            self.on_freed()

    def split(self, split: Split) -> None:
        """Put rows of a bundle back; it is let go if none stay."""
        if not split.rest:
            self._let_go(split.tag)
        self._batch.splits.append(split)
        self._work.set()

    def ack(self, tag: str) -> None:
        """The message is dealt with."""
        if held := self._let_go(tag):
            self._batch.acks.append(tag)
            if held.deadline_of:
                self._batch.answered.append(held.deadline_of)
            if held.published:
                self._batch.published.append(held.published)
            self._work.set()

    def give_back(self, tag: str) -> None:
        """The message goes back to the head of its queue, marked as redelivered."""
        if held := self._let_go(tag):
            raw = mark_redelivered(held.raw())
            self._batch.returns.append(GiveBack(tag, held.delivery.source, raw))
            self._work.set()
            if held.is_passed_on:
                self._stand_back(held.queue)

    def amend(self, tag: str, headers: dict[str, Any]) -> None:
        """Add headers that the message gets if it goes back."""
        if held := self._find(tag):
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
