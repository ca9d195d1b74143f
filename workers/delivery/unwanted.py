"""Answers requests that nobody waits for any more: revoked or expired ones."""

import asyncio
from collections import Counter

from celery.utils.log import get_logger

from modelserver.messaging.backend import Backend, revocations
from modelserver.messaging.transport import Message
from modelserver.store.batch import StoreResult
from workers.delivery.courier import Courier

logger = get_logger(__name__)


class Unwanted:
    """Settles them in the courier's batches, off the tasks. Lives on the loop."""

    def __init__(self, backend: Backend, courier: Courier) -> None:
        self.backend = backend
        self.courier = courier
        self._settling: set[asyncio.Task[None]] = set()

    def settle(self, messages: list[tuple[Message, str]]) -> None:
        """Answer these messages, each by its reason, then acknowledge them."""
        for message, _ in messages:
            self.courier.answered(str(message.delivery_tag))
        task = asyncio.ensure_future(self._settle(messages))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle(self, messages: list[tuple[Message, str]]) -> None:
        stores = [
            self.courier.store(result)
            for message, reason in messages
            if not message.headers.get("ignore_result")
            for result in self._results(message, reason)
        ]
        await asyncio.gather(*stores)
        for message, _ in messages:
            self.courier.ack(str(message.delivery_tag))
        self.courier.forget_revoked([each.headers["id"] for each, _ in messages])
        reasons = Counter(reason for _, reason in messages)
        text = ", ".join(f"{number} {reason}" for reason, number in reasons.items())
        logger.info("not executed: %s", text)

    def _results(self, message: Message, reason: str) -> list[StoreResult]:
        tag, task = str(message.delivery_tag), message.headers["id"]
        return revocations(self.backend, tag, task, message.decode(), reason)
