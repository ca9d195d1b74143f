"""Keeps a window of a run's rows under way, and gives their answers as they come."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from modelserver.errors import StoreFullError, StoreUnreachableError
from modelserver.runs.rows import Answered, Row

#: So many times what the ready engines take at once is under way.
PLACES_TIMES = 3
#: So many rows are under way at least, also where no engine is ready.
SMALLEST_WINDOW = 64
#: Most rows that are sent together.
LARGEST_BLOCK = 512
#: Places are asked for again after so many seconds.
PLACES_SECONDS = 2.0
#: A window is filled again once so great a share of it is free.
FREE_SHARE = 0.125
#: Answers that wait for earlier ones, and rows under way, are together at most so many
#: windows.
HELD_WINDOWS = 4
#: A slow source of rows is left after so many seconds, to look at answers.
PULL_SECONDS = 0.05
#: Seconds of one wait for answers.
RECEIVE_SECONDS = 0.25
#: Seconds between two tries where Redis does not answer.
AGAIN_SECONDS = 0.5


class RowLane(Protocol):
    """What a feeder needs of the way to the fleet."""

    def send(self, rows: Sequence[Row]) -> None:
        """Send rows; what is under way or answered is not run again."""

    def receive(self, timeout: float) -> list[Answered]:
        """What was answered since; waits for the first so many seconds."""

    def settle(self, numbers: Sequence[int]) -> None:
        """Forget answers that were written down."""

    def cancel(self) -> int:
        """Take back what has not begun."""

    def places(self) -> dict[str, int]:
        """How many requests the ready engines of each model take at once."""


def find_block(window: int, remaining: int | None) -> int:
    """How many rows go together: fewer and fewer towards the end of a run.

    So no worker holds the last rows while others have none.

    >>> find_block(1536, None), find_block(1536, 400), find_block(64, 3)
    (384, 25, 1)
    """
    block = min(LARGEST_BLOCK, window // 4)
    if remaining is not None:
        block = min(block, remaining // 16)
    return max(1, block)


class Feeder:
    """Rows in, answers out, in any order. An iterator of lists of answers.

    A row that is wrong stands among the rows as its own answer. ``total`` is how many
    there are, None where nobody knows. Redis may fall silent for ``patience`` seconds
    before its error is raised, None for ever.
    """

    def __init__(
        self,
        lane: RowLane,
        rows: Iterable[Row | Answered],
        total: int | None = None,
        patience: float | None = 60.0,
    ) -> None:
        self.lane = lane
        self._rows = iter(rows)
        self._total = total
        self._patience = patience
        self._pulled = 0
        self._ended = False
        self._window = SMALLEST_WINDOW
        #: The models of the rows so far.
        self._models: set[str] = set()
        self._look_at = 0.0
        #: Rows that could not be sent yet.
        self._unsent: list[Row] = []
        self._ready: list[Answered] = []
        self._failing_since = 0.0
        self._is_reached = False
        #: The numbers of the rows that are under way.
        self.under_way: set[int] = set()
        #: Answers that the caller holds back for the sake of order.
        self.held = 0
        #: Places of ready engines, by model.
        self.places: dict[str, int] = {}
        #: Why nothing is sent or received now, "" where it is.
        self.trouble = ""
        self._stopped = False

    def __iter__(self) -> Iterator[list[Answered]]:
        while not self._stopped:
            self._fill()
            if not (self.under_way or self._ready or self._unsent) and self._ended:
                return
            yield self._receive()

    def stop(self) -> None:
        """Give no more answers; from any thread."""
        self._stopped = True

    def again(self, row: Row) -> None:
        """Send one row more, before others."""
        self._unsent.append(row)

    def _fill(self) -> None:
        self._find_window()
        most = min(self._window, HELD_WINDOWS * self._window - self.held)
        room = most - len(self.under_way)
        if room < max(1, self._window * FREE_SHARE) and self.under_way:
            return
        while room > 0 and not self._stopped:
            rows = self._pull(min(room, find_block(self._window, self._remaining())))
            if not rows or not self._try(self._send, rows):
                return
            room -= len(rows)
            if self._ready:
                return

    def _remaining(self) -> int | None:
        return None if self._total is None else max(0, self._total - self._pulled)

    def _pull(self, most: int) -> list[Row]:
        rows, self._unsent = self._unsent, []
        until = time.monotonic() + PULL_SECONDS
        while len(rows) < most and not self._ended:
            for each in itertools.islice(self._rows, 1):
                self._pulled += 1
                if isinstance(each, Row):
                    rows.append(each)
                    self._models.add(str(each.parameters.get("model")))
                else:
                    self._ready.append(each)
                break
            else:
                self._ended = True
            if time.monotonic() > until or len(self._ready) >= LARGEST_BLOCK:
                break
        return rows

    def _send(self, rows: list[Row]) -> None:
        self._unsent = rows
        self.lane.send(rows)
        self._unsent = []
        self.under_way.update(row.number for row in rows)

    def _receive(self) -> list[Answered]:
        ready, self._ready = self._ready, []
        if not self.under_way:
            if not ready:
                time.sleep(AGAIN_SECONDS)
            return ready

        def receive() -> None:
            ready.extend(self.lane.receive(0.0 if ready else RECEIVE_SECONDS))

        if not self._try(receive):
            time.sleep(AGAIN_SECONDS)
        self.under_way.difference_update(each.number for each in ready)
        return ready

    def _find_window(self) -> None:
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + PLACES_SECONDS

        def look() -> None:
            self.places = self.lane.places()

        if self._try(look):
            # Before the first row is known, those of all models.
            models = self._models or self.places.keys()
            places = sum(self.places.get(model, 0) for model in models)
            self._window = max(SMALLEST_WINDOW, PLACES_TIMES * places)

    def settle(self, numbers: Sequence[int]) -> bool:
        """Have answers forgotten that were written down; whether that was done."""
        return self._try(self.lane.settle, numbers)

    def _try(self, call: Callable[..., None], *arguments: object) -> bool:
        """Whether it went well; raises where it has not for too long."""
        try:
            call(*arguments)
        except (StoreUnreachableError, StoreFullError) as error:
            now = time.monotonic()
            self._failing_since = self._failing_since or now
            self.trouble = str(error)
            waited = now - self._failing_since
            if self._patience is not None and waited > self._patience:
                raise
            if not self._is_reached:
                raise
            return False
        self._failing_since, self.trouble, self._is_reached = 0.0, "", True
        return True
