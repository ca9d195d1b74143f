"""Runs requests under suspicion of killing workers one at a time.

Two workers have died with each of them; nearly all only ran beside the one that is to
blame. The store is told which of them runs: if this worker dies, that one is the cause
and no other is blamed. Lives on the loop.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from modelserver.messaging.transport import Message
from modelserver.store.messages.delivery import Deliveries
from modelserver.store.messages.reaps import MOST_REAPS, reaps_of
from workers.delivery.courier import Courier


class Trials:
    """The requests under suspicion that this worker holds."""

    def __init__(
        self,
        deliveries: Deliveries,
        courier: Courier,
        hand_over: Callable[[str, Message], None],
    ) -> None:
        self.deliveries = deliveries
        self.courier = courier
        self.hand_over = hand_over
        self._waiting: deque[tuple[str, Message]] = deque()
        self._added = asyncio.Event()

    @staticmethod
    def is_suspect(message: Message) -> bool:
        """Whether the next worker that dies with it is the last."""
        return reaps_of(message.headers) >= MOST_REAPS - 1

    def add(self, queue: str, message: Message) -> None:
        """Run it when its turn comes."""
        self._waiting.append((queue, message))
        self._added.set()

    async def run(self) -> None:
        """Run one after the other, for ever."""
        while True:
            self._added.clear()
            while self._waiting:
                queue, message = self._waiting[0]
                await self._try(queue, message)
                self._waiting.popleft()
            await self._added.wait()

    async def _try(self, queue: str, message: Message) -> None:
        tag = str(message.delivery_tag)
        if tag not in self.courier.held:
            return
        await self.deliveries.begin_trial(tag)
        done = self.courier.when_let_go(tag)
        self.hand_over(queue, message)
        await done.wait()
        if len(self._waiting) == 1:
            await self.deliveries.end_trial()
