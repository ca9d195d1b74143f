"""This worker's sign of life, and the messages that dead workers left behind."""

import asyncio
import math
import os
import time
from collections.abc import Callable
from typing import Any

import orjson
from celery.utils.log import get_logger
from redis.exceptions import RedisError

from modelserver.store.batch import Delivery, Stored
from modelserver.store.messages.delivery import Deliveries
from modelserver.store.messages.memory import watch_memory
from modelserver.store.messages.reaps import reap
from modelserver.store.server.away_log import AwayLog
from workers.delivery.server_clock import ServerClock
from workers.engines.process_identity import find_own_process
from workers.engines.roster import Roster
from workers.intake import Intake

logger = get_logger(__name__)

#: How often the lease is renewed and the load reported, in seconds. Many renewals may
#: fail before a lease ends.
RENEW_SECONDS = 0.5
#: How often the memory of Redis is looked at, in seconds, by whichever worker is first.
MEMORY_SECONDS = 1.0
#: How late a message with an ETA may come back into its queue, in seconds.
WAKE_SECONDS = 0.25


class Lease:
    """Renews the lease, which carries the report of the load. Lives on the loop."""

    def __init__(
        self,
        deliveries: Deliveries,
        intake: Intake,
        roster: Roster,
        clock: ServerClock,
        nodename: str,
        seconds: float,
        expire: Callable[[str], "asyncio.Future[Stored]"],
        set_aside: Callable[[Delivery], None],
    ) -> None:
        self.deliveries = deliveries
        self.intake = intake
        self.roster = roster
        self.clock = clock
        self.nodename = nodename
        #: How long the lease lasts unless it is renewed.
        self.seconds = seconds
        #: Answers a request whose deadline passed while nobody could execute it.
        self.expire = expire
        #: Makes a dead letter of a message that too many workers have died with.
        self.set_aside = set_aside
        #: Called when the lease is taken, for the first time or again.
        self.on_taken: Callable[[], None] = lambda: None
        self._renewed = False
        self._away_log = AwayLog(logger, "renewing the lease")
        self._process = find_own_process()

    async def run(self) -> None:
        """Renew for ever, also after Redis was away."""
        while True:
            try:
                await self.once()
                self._away_log.back(time.monotonic())
            except (RedisError, OSError) as error:
                self._away_log.away(error, time.monotonic())
                if time.monotonic() < self.roster.shares_until:
                    # Nor can others take anything: what is here may still begin.
                    self.roster.trust_shares(math.inf)
            await asyncio.sleep(RENEW_SECONDS)

    async def once(self) -> None:
        """Renew once."""
        report, began = orjson.dumps(self._report()), time.monotonic()
        renewal = await self.deliveries.renew(report, self.seconds)
        self.clock.set(renewal.now)
        if renewal.lapsed and self._renewed:
            # Others may have taken our messages: their answers count, not ours.
            logger.warning("the lease had ended: looking what others have taken")
            self.intake.must_reconcile = True
            self.intake.wakeup.set()
        self.intake.revoked = renewal.revoked
        self.intake.leased = True
        self.roster.trust_shares(began + self.seconds)
        if renewal.lapsed or not self._renewed:
            self.on_taken()
        self._renewed = True

    async def reap(self) -> None:
        """Give back or set aside what dead workers held, for ever.

        Apart from the renewals, which it must not delay.
        """
        while True:
            try:
                if self.intake.leased:
                    reaped = await reap(self.deliveries)
                    if reaped.moved:
                        logger.warning(
                            "%d messages of dead workers go back", reaped.moved
                        )
                    for delivery in reaped.aside:
                        self.set_aside(delivery)
            except (RedisError, OSError):
                logger.debug("Redis away: dead workers wait", exc_info=True)
            await asyncio.sleep(RENEW_SECONDS)

    async def watch_memory(self) -> None:
        """Note where a server's memory is short, for ever."""
        short = ""
        while True:
            try:
                before, short = short, await watch_memory(self.deliveries)
                if bool(before) != bool(short):
                    said = f"short: {short}" if short else "no longer short"
                    logger.warning("the memory of Redis is %s", said)
            except (RedisError, OSError):
                logger.debug("Redis away: its memory is unknown", exc_info=True)
            await asyncio.sleep(MEMORY_SECONDS)

    async def wake(self) -> None:
        """Put due messages into their queues, answer overdue requests, for ever."""
        while True:
            try:
                await self.deliveries.wake()
                while overdue := await self.deliveries.overdue():
                    await asyncio.gather(*[self.expire(task) for task in overdue])
            except (RedisError, OSError):
                logger.debug("Redis away: due messages wait", exc_info=True)
            await asyncio.sleep(WAKE_SECONDS)

    def _report(self) -> dict[str, Any]:
        return {
            "node": self.nodename,
            "host": self.roster.host,
            "pid": os.getpid(),
            "process": self._process,
            "held": len(self.intake.courier.held),
            "loads": self.roster.loads(),
        }
