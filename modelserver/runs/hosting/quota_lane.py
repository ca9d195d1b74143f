"""The way of a batch's rows to the fleet, within the limits of an API key.

Rows beyond a limit are held back here until the next minute or day, those of a revoked
key until there is one of its name again. What answers used is entered into the key's
books once they are written down.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from modelserver.errors import ModelserverError, StoreUnreachableError
from modelserver.messaging.answers import tokens as tokens_used
from modelserver.runs.feeder import RowLane
from modelserver.runs.rows import Answered, Row
from modelserver.store import Store
from modelserver.store.fleet.api_keys import (
    ApiKey,
    Count,
    Use,
    count_rows,
    note_rows,
    read_api_keys,
)

#: Before it is known what a row of the batch uses, so many are under way at most.
FIRST_ROWS = 16
#: Limits are looked at again after so many seconds, where one is reached.
LIMITS_SECONDS = 1.0
AT_LIMITS = "is at its limits: rows of its batch wait for the next minute or day"
REVOKED = "is revoked: rows of its batch wait; cancel it, or make a key of this name"

log = logging.getLogger(__name__)


def find_allowed(key: ApiKey, count: Count, used: Use, pending: int) -> float:
    """How many rows more the key's tokens allow, if each uses what those so far did.

    ``pending`` rows were sent whose tokens the count does not have yet.

    >>> key, count = ApiKey("ana", daily_tokens=1_000), Count("", 0, 0, today=400)
    >>> find_allowed(key, count, Use(10, 40, 60), pending=20)
    40
    >>> find_allowed(key, count, Use(0), pending=0), find_allowed(
    ...     ApiKey("bob"), count, Use(0), pending=0)
    (16, inf)
    """
    limits = ((key.tpm, count.tokens), (key.daily_tokens, count.today))
    left = [most - spent for most, spent in limits if most]
    if not left:
        return math.inf
    if min(left) <= 0:
        return 0
    if not used.tokens:
        return max(0, FIRST_ROWS - pending)
    return max(0, math.ceil(min(left) * used.requests / used.tokens) - pending)


class QuotaLane:
    """A lane of which a key's limits hold back rows. Not for several threads."""

    def __init__(
        self, open_store: Callable[[], Store], lane: RowLane, key: str
    ) -> None:
        self._open_store = open_store
        self._lane = lane
        self._key = key
        self._connected: Store | None = None
        #: Rows that were not sent yet, by number.
        self._held: dict[int, Row] = {}
        self._look_at = 0.0
        #: Whether rows wait while none is under way.
        self._is_waiting = False
        #: The models of rows that are under way, by number.
        self._under_way: dict[int, str] = {}
        #: What answers used that are not written down yet, and their model.
        self._unsettled: dict[int, tuple[str, Use]] = {}
        #: What all answers used so far.
        self._used = Use(0)

    def send(self, rows: Sequence[Row]) -> None:
        """Send what the limits allow, and the others later.

        Raises StoreUnreachableError, StoreFullError: then all are to be sent again.
        """
        self._held |= {row.number: row for row in rows}
        try:
            self._send_held()
        except ModelserverError:
            for row in rows:
                self._held.pop(row.number, None)
            raise

    def _send_held(self) -> None:
        if not self._held or time.monotonic() < self._look_at:
            return
        number = self._count()
        if number < len(self._held):
            self._look_at = time.monotonic() + LIMITS_SECONDS
        rows = [*self._held.values()][:number]
        if rows:
            self._lane.send(rows)
        for row in rows:
            del self._held[row.number]
            self._under_way[row.number] = str(row.parameters.get("model"))

    def _count(self) -> int:
        """How many of the rows may be sent now; they are counted."""
        pending = len(self._under_way) + len(self._unsettled)
        with self._store.reachable():
            keys = (key for key in read_api_keys(self._store) if key.name == self._key)
            key = next(keys, None)
            counted = 0 if key is None else self._count_for(key, pending)
        is_waiting = not (counted or pending)
        if is_waiting and not self._is_waiting:
            log.info("key=%s %s", self._key, REVOKED if key is None else AT_LIMITS)
        self._is_waiting = is_waiting
        return counted

    def _count_for(self, key: ApiKey, pending: int) -> int:
        seen = count_rows(self._store, key, 0)
        allowed = find_allowed(key, seen, self._used, pending)
        wanted = int(min(allowed, len(self._held)))
        return count_rows(self._store, key, wanted).counted if wanted else 0

    @property
    def _store(self) -> Store:
        if self._connected is None:
            self._connected = self._open_store()
        return self._connected

    def receive(self, timeout: float) -> list[Answered]:
        """What was answered since; waits for the first so many seconds."""
        self._send_held()
        found = self._lane.receive(timeout)
        for each in found:
            model = self._under_way.pop(each.number, "")
            if each.error is None and not each.cached:
                prompt, completion = tokens_used(each.value)
                use = Use(1, prompt, completion or 0)
                model = model or str(each.value.get("model"))
                self._unsettled[each.number] = (model, use)
                self._used += use
        return found

    def settle(self, numbers: Sequence[int]) -> None:
        """Forget answers that were written down, and enter what they used."""
        self._lane.settle(numbers)
        used: dict[str, Use] = {}
        for number in numbers:
            if number in self._unsettled:
                model, use = self._unsettled.pop(number)
                used[model] = used.get(model, Use(0)) + use
        if used:
            # They are settled: a lost connection does not make them come again.
            with suppress(StoreUnreachableError), self._store.reachable():
                note_rows(self._store, self._key, used)

    def cancel(self) -> int:
        """Take back what has not begun."""
        held = len(self._held)
        self._held.clear()
        return held + self._lane.cancel()

    def places(self) -> dict[str, int]:
        """How many requests the ready engines of each model take at once."""
        return self._lane.places()

    def engines(self) -> dict[str, tuple[int, int]]:
        """By model: how many of its engines are given work, and how many there are."""
        return self._lane.engines()
