"""A message that a worker holds, and what it becomes if it goes back."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from modelserver.store.batch import LEFT_BY, Delivery

#: How a message begins that was passed on; by whom.
_LEFT_BY_FIRST = re.compile(
    rb'\{(?:"rows":\d+,)?"%b":"[\d.]+(\|[^"]*)"' % LEFT_BY.encode()
)


@dataclass(slots=True)
class HeldMessage:
    """A message that this worker holds."""

    queue: str
    delivery: Delivery
    #: The id of its task if that has a deadline.
    deadline_of: str = ""
    #: The key of what was published that follows it, if anything was.
    published: str = ""
    #: Whether an engine has answered; the answer may still be on its way to Redis.
    answered: bool = False
    #: How often it could not be handed over or run before.
    faults: int = 0
    #: Whether it takes no room: it waits for its turn, or for its next attempt.
    aside: bool = False
    #: Whether it goes back for the engines of other hosts.
    is_passed_on: bool = False
    #: Headers that the message gets if it goes back.
    amendments: dict[str, Any] = field(default_factory=dict)
    #: For how many requests it takes room.
    rows: int = 1
    #: Makes the message anew if it goes back, None if it is as it was.
    remake: Callable[[], bytes] | None = None

    def leave(self, worker: str, until: float) -> None:
        """Leave it to others than this worker, and those that did so before."""
        before = _LEFT_BY_FIRST.match(self.delivery.raw)
        names = before[1].decode() if before else "|"
        names += "" if f"|{worker}|" in names else f"{worker}|"
        self.amendments[LEFT_BY] = f"{until:.2f}{names}"

    @property
    def size(self) -> int:
        """Its bytes, about, where it is a row of a bundle."""
        return len(self.delivery.raw) // self.delivery.rows

    def raw(self) -> bytes:
        """The message as it goes back."""
        if self.remake is not None:
            return self.remake()
        if not self.amendments:
            return self.delivery.raw
        message = orjson.loads(self.delivery.raw)
        headers = message["headers"] | self.amendments
        # Scripts read what comes first: how many rows, whom it is not for.
        first = {"rows": message.pop("rows")} if "rows" in message else {}
        message.pop(LEFT_BY, None)
        if LEFT_BY in headers:
            first[LEFT_BY] = headers.pop(LEFT_BY)
        return orjson.dumps({**first, **message, "headers": headers})
