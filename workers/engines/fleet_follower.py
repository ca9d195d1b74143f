"""Follows what others publish: the fleet, the models that are down, the engines.

Looks at the store now and then, and at once when it rings.
"""

import asyncio
import contextlib
import dataclasses
import re
import time
from collections.abc import Callable, Iterable
from typing import Any

import orjson
from celery.utils.log import get_logger
from redis.asyncio import Redis
from redis.exceptions import RedisError

from modelserver.control.applied_fleet import parse
from modelserver.errors import ConfigurationError, FleetRefusedError
from modelserver.messaging.wire import CatalogueSource
from modelserver.settings import Settings
from modelserver.store import Keys
from modelserver.store.fleet.engines import decode_engine
from modelserver.store.server.away_log import AwayLog
from modelserver.store.server.line import Line
from modelserver.store.server.versions import UNREADABLE
from modelserver.values import EngineReport
from workers.engines.fallbacks import Fallbacks
from workers.engines.fleet_refusal import FleetRefusal
from workers.engines.roster import Roster

logger = get_logger(__name__)

#: How often it looks for changed reports if nothing rings, in seconds.
REPORTS_LOOK_SECONDS = 0.5
#: How often all reports are read, changed or not, in seconds.
ALL_REPORTS_SECONDS = 5.0
#: Where an engine that a launcher started listens.
OWN_ENGINE = re.compile(r"http://127\.0\.0\.1:[0-9]+")


class FleetFollower:
    """Keeps settings, catalogue, roster and fallbacks up to date. Lives on the loop."""

    def __init__(
        self,
        client: Redis,
        settings: Settings,
        catalogue: CatalogueSource,
        roster: Roster,
        fallbacks: Fallbacks,
        ring: Callable[[str], None],
    ) -> None:
        self.client = client
        self.keys = Keys(settings.fleet.redis.prefix)
        #: This process's settings with the fleet that was applied last.
        self.settings = settings
        self.catalogue = catalogue
        self.roster = roster
        self.fallbacks = fallbacks
        #: Told the queue that may have something to pull, "" for any.
        self.ring = ring
        #: Called when another fleet was applied.
        self.on_fleet: Callable[[Settings], None] = lambda settings: None
        #: The models whose queues this worker can take requests from.
        self.models: frozenset[str] = frozenset()
        #: Called when these change.
        self.on_models: Callable[[], None] = lambda: None
        #: Models that the fleet has or had: their queues are not subscribed by hand.
        self.known = {spec.name for spec in settings.fleet.specs()}
        self._fleet_text = ""
        self._refusal = FleetRefusal()
        self._look = asyncio.Event()
        #: Reports of all engines.
        self._reports: dict[str, EngineReport] = {}
        #: Hosts of reported engines that had no worker when all was read last.
        self._silent: set[str] = set()
        #: Those that had none the time before, too: nobody there takes a request.
        self._dead: set[str] = set()
        #: The last change of a report that was seen here.
        self._version = 0
        #: When all reports were read last, by the monotonic clock.
        self._read_all_at = -ALL_REPORTS_SECONDS
        self._looks = AwayLog(logger, "what is told of engines")

    async def watch(self) -> None:
        """Go by what is published, for ever."""
        while True:
            self._look = asyncio.Event()
            try:
                await self.look()
                self._looks.back(time.monotonic())
            except (RedisError, OSError) as error:
                self._looks.away(error, time.monotonic())
            self.announce()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REPORTS_LOOK_SECONDS):
                    await self._look.wait()

    async def look(self) -> None:
        """Read what has changed. Raises RedisError, OSError."""
        # First: an engine of a new model comes after the fleet that has it.
        # Bytes: this client decodes nothing.
        values: Any = await self.client.mget(
            self.keys.fleet, self.keys.availability, self.keys.engines_version
        )
        fleet, standings, version = values
        self._follow_fleet(fleet)
        self.fallbacks.update(standings.decode() if standings else "")
        await self._read_reports(int(version or 0))
        self.roster.update(self._believed(), self._dead)

    def _believed(self) -> dict[str, EngineReport]:
        """The reports but for engines here that listen where the fleet does not say.

        Reports are not signed, and engines get prompts and keys.
        """
        pins = {pin.id: pin.url for pin in self.settings.fleet.pins()}
        return {
            name: engine
            for name, engine in self._reports.items()
            if engine.host != self.roster.host
            or OWN_ENGINE.fullmatch(engine.url)
            or engine.url in ("", pins.get(name))
        }

    async def _read_reports(self, version: int) -> None:
        """The reports of the engines that changed; now and then all of them."""
        now = time.monotonic()
        values: Any
        if version < self._version or now - self._read_all_at > ALL_REPORTS_SECONDS:
            values = await self.client.hgetall(self.keys.engines)
            self._reports = {}
            self._read_all_at = now
            await self._read_workers(values.values())
        elif version > self._version:
            after = f"({self._version}"
            changed: Any = await self.client.zrangebyscore(
                self.keys.engine_versions, after, "+inf"
            )
            found: Any = await self.client.hmget(self.keys.engines, changed)
            values = dict(zip(changed, found, strict=True))
        else:
            return
        self._version = version
        for name, value in values.items():
            self._reports.pop(name.decode(), None)
            if value and (engine := _find_report(value)):
                self._reports[engine.id] = engine

    async def _read_workers(self, reports: Iterable[bytes]) -> None:
        """Which hosts have no worker although their engines are reported."""
        names: Any = await self.client.smembers(self.keys.workers)
        keys = [self.keys.worker(name.decode()) for name in names]
        values: Any = await self.client.mget(keys) if keys else []
        alive = {_host_of(value) for value in values if value}
        told = (_find_report(each) for each in reports)
        silent = {each.host for each in told if each} - alive
        self._dead, self._silent = silent & self._silent, silent

    def _follow_fleet(self, value: bytes | None) -> None:
        """Go by the fleet that was applied last, if it is another than before."""
        text = value.decode() if value else ""
        if not text and not self._fleet_text:
            self.catalogue.feed("")
        if text in ("", self._fleet_text):
            return  # A store that lost its data gets it again from a launcher.
        now = time.monotonic()
        if self._refusal.stands(text, now):
            return
        try:
            applied = parse(text, self.settings)
        except ConfigurationError as error:
            if not isinstance(error, FleetRefusedError):
                self.catalogue.feed(text)  # Of a newer version.
            if self._refusal.note(text, str(error), now):
                logger.error("goes on with the fleet that it has: %s", error)
            return
        self._refusal.forget()
        self._fleet_text = text
        self.catalogue.feed(text)
        self.settings = dataclasses.replace(self.settings, fleet=applied.fleet)
        self.known |= {spec.name for spec in applied.fleet.specs()}
        self.on_fleet(self.settings)
        logger.info("fleet version=%d applied by %s", applied.version, applied.by)

    def announce(self) -> None:
        """Tell whoever pulls, and whoever subscribes, what engines take here now."""
        self.ring("")
        models = self.roster.models() | self.fallbacks.models()
        if models != self.models:
            self.models = models
            self.on_models()

    async def listen(self) -> None:
        """Hear the bells: engines changed, or an empty queue got something."""
        changed, bell = self.keys.changed.encode(), self.keys.bell("")

        def hear(channel: bytes, _: bytes) -> None:
            if channel == changed:
                self._look.set()
            else:
                self.ring(channel.decode().removeprefix(bell))

        def listen_again() -> None:
            line.subscribe(self.keys.changed)
            line.subscribe_by(self.keys.bell("*"))
            # What rang meanwhile was not heard.
            self._look.set()
            self.ring("")

        line = Line(self.client, hear, listen_again, "what rings for requests")
        await line.run()


def _find_report(value: bytes) -> EngineReport | None:
    """A report, None where it is one of a newer version that cannot be read."""
    try:
        return decode_engine(value)
    except UNREADABLE as error:
        logger.warning(
            "an engine's report cannot be read (%r): upgrade this host", error
        )
        return None


def _host_of(value: bytes) -> str:
    """The host of a worker by its report, "" where that does not say."""
    try:
        return str(orjson.loads(value)["host"])
    except UNREADABLE:
        return ""
