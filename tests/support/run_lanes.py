"""A way for a run's rows that ends in memory, for tests of what is in front of it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from modelserver.messaging.catalogue import Catalogue, CatalogueEntry
from modelserver.runs.rows import Answered, Row, RowError
from modelserver.values import Kind

MODELS = Catalogue(
    (
        CatalogueEntry("writer", Kind.COMPLETION, 32768),
        CatalogueEntry("vectors", Kind.EMBEDDING),
    )
)


@dataclass(frozen=True)
class App:
    """What a run asks an application: its models."""

    modelserver_models: Callable[[], Catalogue] = lambda: MODELS


def echo(row: Row) -> Answered:
    """The payload as a text; a payload with "fail" in it fails."""
    if "fail" in str(row.payload):
        return Answered(row.number, error=RowError("EngineError", "it failed"))
    choice = {"text": str(row.payload), "finish_reason": "stop"}
    body = {"choices": [choice], "usage": {"completion_tokens": 1}}
    return Answered(row.number, {**body, "engine": "writer-0", "seconds": 0.1})


class MemoryLane:
    """Answers rows at once, at most ``most`` at a time. Calls ``step`` with each call.

    ``order`` puts answers into another order.
    """

    def __init__(
        self,
        most: int = 1_000,
        places: int = 4,
        step: Callable[[str], None] = lambda _: None,
        order: Callable[[list[Answered]], list[Answered]] = lambda rows: rows,
    ) -> None:
        self.sent: list[int] = []
        self.settled: list[int] = []
        self.most_open = 0
        self._open: list[Answered] = []
        self._most = most
        self._places = places
        self._step = step
        self._order = order

    def leave(self, numbers: Iterable[int]) -> None:
        """Answers to these rows are there, as if an earlier program had sent them."""
        task = "modelserver.chat"
        self._open += [echo(Row(number, task, "left")) for number in numbers]

    def send(self, rows: Sequence[Row]) -> None:
        self._step("send")
        self.sent += [row.number for row in rows]
        self._open += [echo(row) for row in rows]
        self.most_open = max(self.most_open, len(self._open))

    def receive(self, timeout: float) -> list[Answered]:
        self._step("receive")
        self._open = self._order(self._open)
        found, self._open = self._open[: self._most], self._open[self._most :]
        return found

    def settle(self, numbers: Sequence[int]) -> None:
        self._step("settle")
        self.settled += numbers

    def find_forgotten(self, numbers: Iterable[int]) -> list[int]:
        return [number for number in numbers if number in self.settled]

    def cancel(self) -> int:
        self._step("cancel")
        return len(self._open)

    def places(self) -> dict[str, int]:
        self._step("places")
        return {"writer": self._places}

    def engines(self) -> dict[str, tuple[int, int]]:
        return {"writer": (int(self._places > 0), 2)}


def rows(number: int) -> list[Row]:
    """So many rows."""
    return [
        Row(place, "modelserver.complete", f"prompt {place}", {"model": "writer"})
        for place in range(number)
    ]
