"""This worker and the others of its host: together they keep to the engines' limits.

Several times a second each says what it has in flight and takes its share. It grows
only into what the others have left, and shrinks by itself: what it has beyond its share
ends. Nothing of this is asked for each request.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from celery.utils.log import get_logger
from redis.exceptions import RedisError

from modelserver.store.messages.delivery import Deliveries
from modelserver.store.messages.shares import ShareNeed, Sharer, give_up_shares, share
from workers.engines.process_identity import find_own_process, is_gone
from workers.engines.roster import Roster
from workers.engines.shares import SUSPECTS_OF, Part, asks, deal, lend

logger = get_logger(__name__)

#: How often the shares are agreed on, in seconds.
SHARE_SECONDS = 0.5
#: The same while this worker waits for its share of some engine, in seconds.
SHORT_SECONDS = 0.1
#: How long a worker without a lease still has its share, in seconds: after an outage of
#: Redis the leases come back one by one.
FORGET_SECONDS = 1.0
#: A share that was not used up for so long may be lent, in seconds.
LEND_SECONDS = 3.0


@dataclass(slots=True)
class _Partner:
    """Another worker of the host."""

    last: Sharer
    #: When its lease was first missed, by the monotonic clock; 0 while it stands.
    missed_at: float = 0.0
    #: By engine: its prompt tokens that are counted here.
    admitted: dict[str, int] = field(default_factory=dict)

    @property
    def is_forgotten(self) -> bool:
        """Whether its lease has ended for good."""
        missed_at = self.missed_at
        return bool(missed_at) and time.monotonic() - missed_at > FORGET_SECONDS


class Partners:
    """Agrees on the shares. Lives on the loop's thread."""

    def __init__(
        self,
        deliveries: Deliveries,
        roster: Roster,
        suspects: Callable[[str], int],
        on_shares: Callable[[], None],
    ) -> None:
        self.deliveries = deliveries
        self.roster = roster
        #: How many suspects of a crash this worker runs, of a model.
        self.suspects = suspects
        #: Called when shares were taken.
        self.on_shares = on_shares
        #: Set when there is something new to agree on.
        self.wakeup = asyncio.Event()
        roster.on_limits = self.wakeup.set
        # Nothing begins before the others are known.
        roster.take_shares({})
        self._process = find_own_process()
        self._others: dict[str, _Partner] = {}
        #: How often this worker took its lease, and when all others were last heard of.
        self._joined, self._sure_of = 0, -1
        #: By engine: when this worker last used up its share, or first saw the engine.
        self._busy_at: dict[str, float] = {}

    def join(self) -> None:
        """Look who else is there: the lease was taken, for the first time or again."""
        self._joined += 1
        self.wakeup.set()

    async def run(self) -> None:
        """Agree for ever, also after Redis was away."""
        while True:
            self.wakeup.clear()
            try:
                wait = SHARE_SECONDS if await self.once() else SHORT_SECONDS
            except (RedisError, OSError):
                logger.debug("Redis away: shares stay as they are", exc_info=True)
                wait = SHARE_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self.wakeup.wait()

    async def once(self) -> bool:
        """Take what this worker is to have; False while it does not have all of it."""
        there = self._find_there()
        needs = self._find_needs(there)
        wanted = {name: need.wanted for name, need in needs.items()}
        # First: from now on nothing begins beyond a smaller share.
        shares = self.roster.shares or {}
        self.roster.take_shares(
            {name: min(need.had, need.wanted) for name, need in needs.items()}
        )
        others = self._others.values()
        gone = [each.last.name for each in others if is_gone(each.last.process)]
        ended = [each.last.name for each in others if each.is_forgotten]
        own = Sharer(
            self.deliveries.worker, True, self._process, not self.roster.closed
        )
        joined, host = self._joined, self.roster.host
        sure = self._sure_of == joined
        found = await share(self.deliveries, host, own, needs, gone, ended, sure)
        if found is None:
            return False  # The lease comes first.
        for name in gone:
            logger.warning("worker %s of this host is gone", name)
        self._sure_of = joined if found.is_complete else -1
        self._learn(found.others, gone)
        self.roster.take_shares(found.shares)
        if found.shares != shares:
            self.on_shares()
        if self._find_there() != there:
            self.wakeup.set()
        has_all = all(found.shares[name] >= number for name, number in wanted.items())
        return has_all and found.is_complete

    async def leave(self) -> None:
        """Leave this worker's shares to the others."""
        await give_up_shares(self.deliveries, self.roster.host)

    def _find_there(self) -> list[str]:
        """The workers that share the limits, by rank."""
        own = [] if self.roster.closed else [self.deliveries.worker]
        others = [
            name
            for name, each in self._others.items()
            if each.last.stays and not each.is_forgotten
        ]
        return sorted(own + others)

    def _find_needs(self, there: list[str]) -> dict[str, ShareNeed]:
        """What this worker has and wants, by engine, and of each model's suspects."""
        slots, had = self.roster.slots, self.roster.shares or {}
        limits = {name: slot.engine.limit for name, slot in slots.items()}
        models = {name: slot.engine.model for name, slot in slots.items()}
        parts = dict(zip(there, deal(limits, models, len(there)), strict=True))
        own = parts.get(self.deliveries.worker, Part())
        needs = {}
        for name, slot in slots.items():
            asked = self._ask(name, own.shares.get(name, 0))
            wanted = self._find_wanted(name, asked, parts)
            needs[name] = ShareNeed(
                inflight=slot.inflight,
                wanted=wanted,
                limit=limits[name],
                had=had.get(name, 0),
                admitted=slot.own_admitted,
                asked=asked,
            )
        for model in set(models.values()):
            running, name = int(self.suspects(model) > 0), SUSPECTS_OF + model
            wanted = int(model in own.leads)
            needs[name] = ShareNeed(running, wanted, limit=1, had=had.get(name, 0))
        self._busy_at = {name: self._busy_at[name] for name in slots}
        return needs

    def _find_wanted(self, engine: str, asked: int, parts: dict[str, Part]) -> int:
        own = self.deliveries.worker
        if not parts:
            # It ends, and is alone: what it has may need further attempts.
            return self.roster.slots[engine].share
        if own not in parts:
            return 0
        shares = [part.shares[engine] for part in parts.values()]
        all_asked = [
            asked if name == own else self._asked_by(name, engine, part)
            for name, part in parts.items()
        ]
        return lend(shares, all_asked)[list(parts).index(own)]

    def _ask(self, engine: str, dealt: int) -> int:
        """How many requests this worker could have on an engine."""
        slot, now = self.roster.slots[engine], time.monotonic()
        used = slot.inflight + self.roster.waiting(slot.engine.model)
        full = used >= min(slot.share, dealt)
        if full:
            self._busy_at[engine] = now
        idle = now - self._busy_at.setdefault(engine, now) > LEND_SECONDS
        return asks(dealt, used, full, idle)

    def _asked_by(self, worker: str, engine: str, part: Part) -> int:
        known = self._others[worker].last.engines.get(engine)
        return known.asked if known else part.shares[engine]

    def _learn(self, others: tuple[Sharer, ...], gone: list[str]) -> None:
        """Take note of who is there, and of what they have on the engines."""
        now, before = time.monotonic(), self._others
        self._others = {}
        for each in others:
            partner = before.pop(each.name, None) or _Partner(each)
            partner.last = each
            partner.missed_at = 0.0 if each.lives else partner.missed_at or now
            self._others[each.name] = partner
        for name, partner in before.items():
            # A server that lost its data hears of the others again one by one.
            partner.missed_at = partner.missed_at or now
            stays = partner.last.stays and name not in gone
            if stays and not partner.is_forgotten:
                self._others[name] = partner
        for name, slot in self.roster.slots.items():
            slot.inflight_of_others = 0
            for partner in self._others.values():
                use = partner.last.engines.get(name)
                if use is None:
                    continue
                slot.inflight_of_others += use.inflight
                known = partner.admitted.get(name, use.admitted)
                slot.admitted += max(0, use.admitted - known)
                partner.admitted[name] = use.admitted
