"""Which queues may have something to pull, so that no others are asked. Pure.

A queue that gave less than there was room for is empty, and a bell rings when something
comes into it.
"""

from collections.abc import Collection, Sequence

from modelserver.store.batch import MOST_BYTES, Delivery

#: All queues are looked into after so many seconds, in case a bell is not heard: a
#: producer of another kind rings none.
LOOK_SECONDS = 1.0


class OpenQueues:
    """The queues of one worker that may have something."""

    def __init__(self) -> None:
        #: Those that may have something, the one that rang last at the end.
        self._open: dict[str, None] = {}
        self._are_all_open = True
        self._looked_at = 0.0
        #: Those that may have something, but there was no room for it.
        self._full: set[str] = set()

    def open(self, queue: str) -> None:
        """A queue may have something; "" is any."""
        if queue:
            self._open.pop(queue, None)
            self._open[queue] = None
        else:
            self.open_all()

    def open_all(self) -> None:
        """Any queue may have something."""
        self._are_all_open = True

    def wait_for_room(self, queue: str) -> None:
        """A queue may have something as soon as there is more room."""
        self._full.add(queue)

    def make_room(self) -> bool:
        """There is more room; whether any queue waits for it."""
        waited, self._full = self._full, set()
        for queue in waited:
            self._open.setdefault(queue)
        return bool(waited)

    def take(self, queues: Collection[str], now: float) -> list[str]:
        """Those of these queues to look into at ``now``, the one that rang last first.

        They count as empty from then on, until they are opened again.

        >>> queues = OpenQueues()
        >>> queues.take(["a", "b"], now=9.0), queues.take(["a", "b"], now=9.1)
        (['a', 'b'], [])
        >>> queues.open("b")
        >>> queues.take(["a", "b"], now=9.2)
        ['b']
        """
        rung = [queue for queue in reversed(self._open) if queue in queues]
        rest: list[str] = []
        if self._are_all_open or now - self._looked_at >= LOOK_SECONDS:
            rest = [queue for queue in queues if queue not in self._open]
            self._are_all_open, self._looked_at = False, now
            self._full.clear()
        # Bells ring for queues of others, too.
        self._open.clear()
        return rung + rest


def is_cut_short(pulled: Sequence[Delivery], room: int) -> bool:
    """Whether a pull into so much room has left something, perhaps."""
    rows = sum(delivery.rows for delivery in pulled)
    return rows >= room or sum(len(each.raw) for each in pulled) >= MOST_BYTES
