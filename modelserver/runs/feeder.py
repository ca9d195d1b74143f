"""Keeps a window of a run's rows under way, and gives their answers as they come."""

import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from modelserver.errors import ModelserverError
from modelserver.runs.patience import AGAIN_SECONDS, Patience
from modelserver.runs.rows import Answered, Row

#: So many times what the ready engines take at once is under way.
PLACES_TIMES = 3
#: So many rows of a model are under way at least, also where no engine is ready.
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
#: So many rows of models whose windows are full wait here at most, while rows of
#: other models are looked for.
MOST_ASIDE = 10_000


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

    def engines(self) -> dict[str, tuple[int, int]]:
        """By model: how many of its engines are given work, and how many there are."""


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

    Each model has a window of its own, so that none holds up the others. A row that is
    wrong stands among the rows as its own answer. ``total`` is how many there are, None
    where nobody knows. Redis may fall silent for ``patience`` seconds before its error
    is raised, None for ever. With ``is_mixed`` rows may be of several models: those
    behind rows of a model without engines are looked for.
    """

    def __init__(
        self,
        lane: RowLane,
        rows: Iterable[Row | Answered],
        total: int | None = None,
        patience: float | None = 60.0,
        is_mixed: bool = False,
    ) -> None:
        self.lane = lane
        self._rows = iter(rows)
        self._total = total
        self._patience = Patience(patience)
        self._is_mixed = is_mixed
        self._pulled = 0
        self._ended = False
        self._look_at = 0.0
        #: Rows that could not be sent yet.
        self._unsent: list[Row] = []
        #: By model: rows that wait until its window has room, and how many they are.
        self._aside: defaultdict[str, deque[Row]] = defaultdict(deque)
        self._many_aside = 0
        self._ready: list[Answered] = []
        #: The models of the rows that are under way, by number.
        self.under_way: dict[int, str] = {}
        #: How many rows of each model are under way; all models so far are in it.
        self._many: Counter[str] = Counter()
        #: Answers that the caller holds back for the sake of order.
        self.held = 0
        #: Places of ready engines, by model.
        self.places: dict[str, int] = {}
        #: By model: how many of its engines are ready, and how many there are.
        self.engines: dict[str, tuple[int, int]] = {}
        #: Whether it gives no more answers because it was told so.
        self.is_stopped = False

    @property
    def trouble(self) -> str:
        """Why nothing is sent or received now, "" where it is."""
        return self._patience.trouble

    def __iter__(self) -> Iterator[list[Answered]]:
        while not self.is_stopped:
            self._fill()
            if self._is_empty() and self._ended:
                return
            yield self._receive()

    def _is_empty(self) -> bool:
        return not (self.under_way or self._ready or self._unsent or self._many_aside)

    def stop(self) -> None:
        """Give no more answers; from any thread."""
        self.is_stopped = True

    def take_back(self) -> str:
        """Have what has not begun taken back; says what became of the rest."""
        try:
            taken = self.lane.cancel() if self.under_way else 0
        except ModelserverError as error:
            return f"the others could not be cancelled: {error}"
        running = len(self.under_way) - taken
        return f"{taken:,} that waited are cancelled, {running:,} still run"

    def again(self, row: Row) -> None:
        """Send one row more, before others."""
        self._unsent.append(row)

    # Windows.

    def _window(self, model: str) -> int:
        return max(SMALLEST_WINDOW, PLACES_TIMES * self.places.get(model, 0))

    def _room(self, model: str) -> int:
        return self._window(model) - self._many[model]

    def _find_room(self) -> tuple[int, int]:
        """How many rows may be sent now, and how large all windows are together.

        A model counts once so great a share of its window is free.
        """
        models = [*self._many] or [""]
        windows = {model: self._window(model) for model in models}
        whole, room = sum(windows.values()), 0
        for model, window in windows.items():
            free = window - self._many[model]
            if free >= max(1, window * FREE_SHARE) or not self.under_way:
                room += free
        if not room and self._is_mixed and not all(map(self.places.get, models)):
            room = SMALLEST_WINDOW  # A model that was not seen yet may have engines.
        most = HELD_WINDOWS * whole - self.held - len(self.under_way)
        if room > most and most < whole * FREE_SHARE and self.under_way:
            room = 0
        return max(0, min(room, most)), whole

    def _fill(self) -> None:
        self._find_places()
        room, whole = self._find_room()
        while room > 0 and not self.is_stopped:
            rows = self._pull(min(room, find_block(whole, self._remaining())))
            if not rows or not self._patience.try_call(self._send, rows):
                return
            room -= len(rows)
            if self._ready:
                return

    def _remaining(self) -> int | None:
        if self._total is None:
            return None
        return max(0, self._total - self._pulled + self._many_aside)

    # Rows.

    def _pull(self, most: int) -> list[Row]:
        rows, self._unsent = self._unsent, []
        planned = Counter(_model_of(row) for row in rows)
        until = time.monotonic() + PULL_SECONDS
        for model, waiting in self._aside.items():
            while waiting and len(rows) < most and planned[model] < self._room(model):
                rows.append(waiting.popleft())
                planned[model] += 1
                self._many_aside -= 1
        while len(rows) < most and self._many_aside < MOST_ASIDE:
            each = next(self._rows, None)
            if each is None:
                self._ended = True
                break
            self._pulled += 1
            if isinstance(each, Answered):
                self._ready.append(each)
            elif planned[model := _model_of(each)] < self._room(model):
                rows.append(each)
                planned[model] += 1
            else:
                self._aside[model].append(each)
                self._many_aside += 1
                if not self._is_mixed:
                    break
            if time.monotonic() > until or len(self._ready) >= LARGEST_BLOCK:
                break
        return rows

    def _send(self, rows: list[Row]) -> None:
        self._unsent = rows
        self.lane.send(rows)
        self._unsent = []
        for row in rows:
            self._count(row.number, _model_of(row))

    def _count(self, number: int, model: str) -> None:
        if number not in self.under_way:
            self.under_way[number] = model
            self._many[model] += 1

    def _receive(self) -> list[Answered]:
        ready, self._ready = self._ready, []
        if not self.under_way:
            if not ready:
                time.sleep(AGAIN_SECONDS)
            return ready

        def receive() -> None:
            ready.extend(self.lane.receive(0.0 if ready else RECEIVE_SECONDS))

        if not self._patience.try_call(receive):
            time.sleep(AGAIN_SECONDS)
        for each in ready:
            model = self.under_way.pop(each.number, None)
            if model is not None:
                self._many[model] -= 1
        return ready

    def _find_places(self) -> None:
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + PLACES_SECONDS

        def look() -> None:
            self.places = self.lane.places()
            self.engines = self.lane.engines()

        self._patience.try_call(look)

    def settle(self, numbers: Sequence[int]) -> bool:
        """Have answers forgotten that were written down; whether that was done."""
        return self._patience.try_call(self.lane.settle, numbers)


def _model_of(row: Row) -> str:
    return str(row.parameters.get("model"))
