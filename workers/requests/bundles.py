"""Bundles under way: each of their rows is executed like a request of its own.

A bundle is acknowledged once all its rows are answered or have gone back to the queue,
as bundles of their own, with what they were tried on. Lives on the loop's thread.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from celery.exceptions import Reject
from celery.utils.log import get_logger
from redis.exceptions import RedisError

from modelserver.errors import ModelserverError, PoisonError, RequestError
from modelserver.messaging.bundles import (
    CANCELLED,
    BundleRow,
    WaitingBundle,
    answer_rows,
    read_bundle,
    write_answer,
    write_error,
)
from modelserver.store.batch import (
    CRASHES,
    REAPS,
    Delivery,
    RowAnswer,
    Split,
    Stored,
)
from modelserver.store.messages.delivery import Deliveries
from modelserver.store.messages.reaps import MOST_REAPS
from workers.delivery.courier import Courier
from workers.requests.executor import Executor
from workers.requests.open_bundle import (
    OpenBundle,
    RowContext,
    by_suspicion,
    open_bundle,
)

logger = get_logger(__name__)

#: How often a worker looks whether a run is cancelled, in seconds.
CANCEL_LOOK_SECONDS = 0.5
#: Rows that are too many for the engines of a host go back in bundles of this part of
#: what these take at once.
PARTS_OF_CAPACITY = 8
#: What is told of a row that was taken back.
CANCELLED_TEXT = "the run was cancelled before this row began"
#: What is told of a row whose bundle was revoked by its id.
REVOKED_TEXT = "the message of this row was revoked"


class Bundles:
    """Executes bundles."""

    def __init__(
        self,
        deliveries: Deliveries,
        courier: Courier,
        executor: Executor,
        abandon: Callable[[str], None],
    ) -> None:
        self.deliveries = deliveries
        self.courier = courier
        self.executor = executor
        #: Ends this worker's run of a message that others have taken.
        self.abandon = abandon
        self._open: dict[str, OpenBundle] = {}
        #: Bundles that are answered as a whole, by tag: how many rows are not stored.
        self._closing: dict[str, int] = {}
        #: Runs of which a round is known to be cancelled.
        self._cancelled: set[tuple[str, int]] = set()
        courier.on_row_stored = self._stored

    async def execute(self, arguments: Mapping[str, Any], context: Any) -> None:
        """Answer the rows of a bundle; returns once none of them is left here."""
        tag = str((context.properties or {}).get("delivery_tag", ""))
        held = self.courier.held.get(tag)
        if held is None:
            return  # Taken for dead meanwhile: others have it.
        bundle = open_bundle(tag, held, arguments, context)
        again = bool((context.delivery_info or {}).get("redelivered"))
        self._open[bundle.tag] = bundle
        try:
            self.courier.hold_rows(
                bundle.tag,
                map(bundle.row_tag, bundle.rows.values()),
                lambda: self._remade(bundle),
            )
            if again:
                await self._leave_out_answered(bundle)
            self._send_back_excess(bundle)
            self._begin(bundle)
            await bundle.ended
        finally:
            self._open.pop(bundle.tag, None)
            for task in bundle.running.values():
                task.cancel()
            for row in bundle.rows.values():
                row.state |= self.courier.let_row_go(bundle.row_tag(row))

    async def _leave_out_answered(self, bundle: OpenBundle) -> None:
        """Forget the rows that an earlier delivery answered; heed a cancelled run."""
        try:
            look = self.deliveries.look_at_rows(bundle.run, [*bundle.rows])
            done, cancelled = await look
        except (RedisError, OSError):
            return  # Executed again: where there is an answer, the new one is refused.
        for number in done:
            self.courier.let_row_go(bundle.row_tag(bundle.rows[number]))
            bundle.let_go(number)
        if cancelled:
            self._cancelled.add(bundle.run)

    def _begin(self, bundle: OpenBundle) -> None:
        loop = asyncio.get_running_loop()

        def cancelled() -> bool:
            return bundle.run in self._cancelled

        for number, row in list(bundle.rows.items()):
            context = bundle.contexts[number] = RowContext(row, bundle, cancelled)
            work = self._answer(bundle, row, context)
            bundle.running[number] = loop.create_task(work)

    async def _answer(
        self, bundle: OpenBundle, row: BundleRow, context: RowContext
    ) -> None:
        own = row.parameters
        parameters = bundle.parameters if own is None else own
        try:
            value = await self.executor.execute(
                bundle.task, (row.payload,), parameters, context
            )
            answer = write_answer(value)
        except Reject as reason:
            if not context.begun and bundle.run in self._cancelled:
                answer = write_error(CANCELLED, CANCELLED_TEXT)
            else:
                self._leave(bundle, row, reason)
                return
        except PoisonError:
            text = f"{self._crashes(bundle, row)} engines died with row {row.number}"
            answer = write_error(PoisonError.__name__, text)
        except ModelserverError as error:
            answer = write_error(type(error).__name__, str(error))
        except Exception as error:
            logger.exception("run=%s row=%d failed", bundle.run[0], row.number)
            answer = write_error(type(error).__name__, str(error))
        self._store(bundle, row, answer)

    def _crashes(self, bundle: OpenBundle, row: BundleRow) -> int:
        held = self.courier.rows.get(bundle.row_tag(row))
        known = row.state | (held.amendments if held else {})
        return int(known.get(CRASHES, 0))

    def _store(self, bundle: OpenBundle, row: BundleRow, answer: bytes) -> None:
        self.courier.let_row_go(bundle.row_tag(row))
        self.courier.answer_row(RowAnswer(bundle.tag, *bundle.run, row.number, answer))

    def _stored(self, answer: RowAnswer, stored: Stored) -> None:
        """Redis has the answer, or refuses it."""
        bundle, tag, number = self._open.get(answer.tag), answer.tag, answer.number
        if stored is Stored.REFUSED and tag in self.courier.held:
            text = f"Redis refuses to store the answer: {len(answer.value)} bytes"
            value = write_error(RequestError.__name__, text)
            again = RowAnswer(tag, answer.run, answer.round, number, value)
            self.courier.answer_row(again)
        elif stored is Stored.FENCED:
            self._closing.pop(tag, None)
            self.abandon(tag)
        elif bundle is not None:
            bundle.running.pop(number, None)
            bundle.contexts.pop(number, None)
            bundle.let_go(number)
        elif tag in self._closing:
            self._closing[tag] -= 1
            if not self._closing[tag]:
                del self._closing[tag]
                self.courier.ack(tag)

    # Rows that go back.

    def _leave(self, bundle: OpenBundle, row: BundleRow, reason: Exception) -> None:
        """The row goes back, with others that do so in the same moment."""
        run = bundle.run[0]
        logger.debug("run=%s row=%d goes back: %s", run, row.number, reason)
        row.state |= self.courier.let_row_go(bundle.row_tag(row))
        if not bundle.leaving:
            asyncio.get_running_loop().call_soon(self._send_back, bundle)
        bundle.leaving.append(row)

    def _send_back(self, bundle: OpenBundle) -> None:
        leaving, bundle.leaving = bundle.leaving, []
        message = read_bundle(bundle.delivery.raw)
        if leaving and message is not None:
            self._split(bundle, leaving, message, by_suspicion(message, leaving))

    def _send_back_excess(self, bundle: OpenBundle) -> None:
        """Leave to others what is more than the engines here take at once.

        The bundle was made for larger engines, or for these before their limit fell.
        """
        executor = self.executor
        model = executor.fallbacks.model_for(bundle.queue)
        most = executor.roster.capacity(model)
        message = read_bundle(bundle.delivery.raw)
        if not 0 < most < len(bundle.rows) or message is None:
            return
        excess = list(bundle.rows.values())[most:]
        for row in excess:
            self.courier.let_row_go(bundle.row_tag(row))
        part = max(1, most // PARTS_OF_CAPACITY)
        cuts = range(0, len(excess), part)
        messages = [message.with_rows(excess[at : at + part]) for at in cuts]
        self._split(bundle, excess, message, messages)

    def _split(
        self,
        bundle: OpenBundle,
        leaving: Sequence[BundleRow],
        message: WaitingBundle,
        messages: Sequence[bytes],
    ) -> None:
        if bundle.tag not in self.courier.held:
            return  # It has gone back as a whole.
        for row in leaving:
            bundle.running.pop(row.number, None)
            bundle.contexts.pop(row.number, None)
            del bundle.rows[row.number]
        stay = list(bundle.rows.values())
        rest = message.with_rows(stay) if stay else b""
        self.courier.split(
            Split(
                bundle.tag,
                bundle.delivery.source,
                bundle.held_rows,
                rest,
                tuple(messages),
            )
        )
        bundle.held_rows = len(stay)
        if not stay:
            bundle.ended.set_result(None)

    def _remade(self, bundle: OpenBundle) -> bytes:
        """The message as it goes back: with the rows that are still open."""
        message = read_bundle(bundle.delivery.raw)
        if message is None:
            return bundle.delivery.raw
        for row in bundle.rows.values():
            row.state |= self.courier.let_row_go(bundle.row_tag(row))
        return message.with_rows([*bundle.rows.values()])

    # Bundles that are settled without being executed.

    def ack(self, tag: str) -> None:
        """Celery is done with a message; the rows of one that it ended are answered."""
        bundle = self._open.get(tag)
        if bundle is None or not bundle.rows:
            self.courier.ack(tag)
            return
        del self._open[tag]
        self._closing[tag] = len(bundle.rows)
        leaving, bundle.leaving = bundle.leaving, []
        for number, task in bundle.running.items():
            row = bundle.rows[number]
            if row in leaving or not task.done():
                task.cancel()
                self._store(bundle, row, write_error(CANCELLED, REVOKED_TEXT))

    def revoke(self, tag: str, raw: bytes) -> bool:
        """End a bundle that was revoked before it began; False for another message."""
        message = read_bundle(raw)
        if message is None:
            return False
        self.answer_all(tag, message, write_error(CANCELLED, REVOKED_TEXT))
        return True

    def isolate(self, tag: str, raw: bytes, **headers: Any) -> bool:
        """Make a bundle of each row of one that is held; False for a single row.

        For a bundle that workers died with: one of its rows is to blame.
        """
        held, message = self.courier.held.get(tag), read_bundle(raw)
        if held is None or message is None or len(message.rows) < 2:
            return False
        alone = tuple(message.with_rows([row], **headers) for row in message.rows)
        source, number = held.delivery.source, len(message.rows)
        self.courier.split(Split(tag, source, number, b"", alone))
        return True

    def answer_all(self, tag: str, message: WaitingBundle, answer: bytes) -> None:
        """Give all rows of a held bundle this answer, then acknowledge it."""
        self._closing[tag] = len(message.rows)
        for each in answer_rows(message, tag, answer):
            self.courier.answer_row(each)

    def set_aside(self, delivery: Delivery, reason: str) -> None:
        """End a bundle that too many workers died with: its row, if it has only one."""
        message = read_bundle(delivery.raw)
        if message is None:
            self.courier.ack(delivery.tag)
        elif not self.isolate(delivery.tag, delivery.raw, **{REAPS: MOST_REAPS - 1}):
            number = message.rows[0].number
            logger.error("run=%s row=%d: %s", message.run[0], number, reason)
            text = f"row {number} was set aside: {reason}"
            answer = write_error(PoisonError.__name__, text)
            self.answer_all(delivery.tag, message, answer)

    # Runs that are cancelled.

    async def watch(self) -> None:
        """Look for cancelled runs among those that are under way, for ever."""
        while True:
            await asyncio.sleep(CANCEL_LOOK_SECONDS)
            runs = {each.run for each in self._open.values()}
            self._cancelled &= runs
            if new := sorted(runs - self._cancelled):
                try:
                    found = await self.deliveries.find_cancelled(new)
                except (RedisError, OSError):
                    continue
                self._cancelled |= found
            if self._cancelled:
                self._cancel()

    def _cancel(self) -> None:
        """Answer the rows of cancelled runs that have not begun."""
        for bundle in self._open.values():
            if bundle.run not in self._cancelled:
                continue
            for number, context in list(bundle.contexts.items()):
                task = bundle.running.get(number)
                if context.begun or task is None or task.done():
                    continue
                task.cancel()
                del bundle.contexts[number]
                answer = write_error(CANCELLED, CANCELLED_TEXT)
                self._store(bundle, bundle.rows[number], answer)
