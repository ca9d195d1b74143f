"""A bundle whose rows are under way, and what the executor is told of each of them."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelserver.messaging.bundles import BundleRow, WaitingBundle
from modelserver.store.batch import CRASHES, LEFT_BY, SENT, Delivery
from workers.delivery.held_message import HeldMessage


class RowContext:
    """What the executor is told of a row, as Celery tells it of a task."""

    __slots__ = ("_cancelled", "_states", "begun", "delivery_info", "id", "properties")

    #: Rows expire with their deadline only.
    expires = None

    def __init__(
        self, row: BundleRow, bundle: "OpenBundle", cancelled: Callable[[], bool]
    ) -> None:
        self.id = f"{bundle.run[0]}:{row.number}"
        self.properties = {"delivery_tag": bundle.row_tag(row)}
        self.delivery_info = {"routing_key": bundle.queue}
        self._states = (row.state, bundle.state)
        #: Whether an engine has been asked.
        self.begun = False
        self._cancelled = cancelled

    def get(self, name: str, default: Any = None) -> Any:
        """What the headers of a message would say."""
        own, shared = self._states
        return own[name] if name in own else shared.get(name, default)

    def may_begin(self) -> bool:
        """Whether an engine may be asked: not once the run is cancelled."""
        self.begun = not self._cancelled()
        return self.begun


@dataclass(slots=True)
class OpenBundle:
    """A bundle whose rows are under way."""

    delivery: Delivery
    queue: str
    #: The run, and which of its rounds.
    run: tuple[str, int]
    task: str
    parameters: Mapping[str, Any]
    #: What is known of all its rows, by the names of a message's headers.
    state: Mapping[str, Any]
    #: Rows that are not settled, by number.
    rows: dict[int, BundleRow]
    #: How many rows the message has that the server holds.
    held_rows: int
    #: Set once no row is left here.
    ended: "asyncio.Future[None]"
    running: dict[int, "asyncio.Task[None]"] = field(default_factory=dict)
    contexts: dict[int, RowContext] = field(default_factory=dict)
    #: Rows that are to go back.
    leaving: list[BundleRow] = field(default_factory=list)

    @property
    def tag(self) -> str:
        """The tag of its delivery."""
        return self.delivery.tag

    def row_tag(self, row: BundleRow) -> str:
        """What the courier knows the row by."""
        return f"{self.tag}/{row.number}"

    def let_go(self, number: int) -> None:
        """The row is no longer this bundle's."""
        self.rows.pop(number, None)
        if not self.rows and not self.ended.done():
            self.ended.set_result(None)


def open_bundle(
    tag: str, held: HeldMessage, arguments: Mapping[str, Any], context: Any
) -> OpenBundle:
    """A bundle that begins, from its held message and what that says."""
    rows = [BundleRow.read(values) for values in arguments["rows"]]
    return OpenBundle(
        delivery=held.delivery,
        queue=held.queue,
        run=(arguments["run"], arguments["round"]),
        task=arguments["task"],
        parameters=arguments["parameters"],
        state={SENT: context.get(SENT), **(arguments.get("state") or {})},
        rows={row.number: row for row in rows},
        held_rows=len(rows),
        ended=asyncio.get_running_loop().create_future(),
    )


def by_suspicion(message: WaitingBundle, rows: Sequence[BundleRow]) -> list[bytes]:
    """The messages of rows that go back: each suspect of a crash has its own.

    The others share one, but for those that are left to other workers: these go with
    those that are left to the same.
    """
    suspects = [row for row in rows if row.state.get(CRASHES)]
    others: dict[str, list[BundleRow]] = {}
    for row in rows:
        left_by = row.state.pop(LEFT_BY, "")
        if not row.state.get(CRASHES):
            others.setdefault(left_by, []).append(row)
    together = [
        message.with_rows(those, left_by=left_by) for left_by, those in others.items()
    ]
    return together + [message.with_rows([row]) for row in suspects]
