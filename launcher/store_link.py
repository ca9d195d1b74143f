"""The launcher's line to the store, which may be down while engines go on."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import redis

from modelserver.control.alerts import raise_alert, tell_by_hooks
from modelserver.control.applied_fleet import provide
from modelserver.errors import StoreUnreachableError
from modelserver.inventory import Host
from modelserver.measured import Canary, EngineLoad, Metrics, Sample
from modelserver.policy.placement.silent_hosts import REPORTING_SECONDS
from modelserver.policy.troubles import Trouble
from modelserver.settings import Settings
from modelserver.store.fleet.alerts import AlertRecord
from modelserver.store.fleet.applied import publish_fleet, read_applied_fleet
from modelserver.store.fleet.control import read_all_wishes, read_steered
from modelserver.store.fleet.decisions import last_decisions
from modelserver.store.fleet.engines import (
    next_incarnation,
    read_engines,
    remove_engine,
    report_engine,
)
from modelserver.store.fleet.hosts import (
    end_host_lease,
    name_data,
    note_data_loss,
    read_hosts,
    report_host,
)
from modelserver.store.fleet.measurements import (
    add_canaries,
    read_samples,
    report_metrics,
)
from modelserver.store.fleet.workers import read_loads
from modelserver.store.server.state import Store
from modelserver.values import EngineReport, NodeReport, Wish

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

#: A reading of the store's clock that took longer says nothing, in seconds.
CLOCK_READ_SECONDS = 0.5
#: Canaries that are kept for a store that is away, the newest.
UNSENT_CANARIES = 64


@dataclass(frozen=True, slots=True)
class StoreView:
    """What the store said when it was last read."""

    #: The wishes for this host, by engine.
    wishes: Mapping[str, Wish] = field(default_factory=dict)
    #: The engines whose wishes another version wrote that cannot be read here.
    unread: frozenset[str] = frozenset()
    #: The engines that are wanted on another host.
    elsewhere: frozenset[str] = frozenset()
    #: Those of them that serve there.
    serving_elsewhere: frozenset[str] = frozenset()
    #: The wishes for engines of which this host has a node and another one the first.
    led: Mapping[str, Wish] = field(default_factory=dict)
    #: What workers report of engines.
    loads: Mapping[str, EngineLoad] = field(default_factory=dict)
    #: What launchers report of all engines.
    engines: Mapping[str, EngineReport] = field(default_factory=dict)
    #: The live hosts, as far as an engine of several hosts concerns this one.
    hosts: frozenset[str] = frozenset()
    #: What these report of such engines' nodes.
    nodes: Mapping[tuple[str, int], NodeReport] = field(default_factory=dict)
    #: The engines of this host of which the store has a report.
    reported: frozenset[str] = frozenset()
    #: When control last looked at the fleet by the store's clock, 0 if it never did.
    steered_at: float = 0.0
    #: The random name of the store's data; another one once the store has lost it.
    data: str = ""
    #: The applied fleet as the store has it, "" for none.
    fleet: str = ""
    #: The store's clock minus the monotonic clock of this process, in seconds.
    clock_offset: float = 0.0
    #: When this was read, by the monotonic clock.
    read_at: float = float("-inf")

    @property
    def steered(self) -> bool:
        """Whether control ever spoke; before, the absence of a wish means nothing."""
        return self.steered_at > 0

    @property
    def known(self) -> bool:
        """Whether the store has been read at all."""
        return self.read_at > float("-inf")

    def store_time(self, monotonic: float) -> float:
        """The store's clock at a time of this process's monotonic clock."""
        return monotonic + self.clock_offset

    def seconds_after(self, before: "StoreView") -> float:
        """The time since an earlier reading.

        This process's clock stands still while its host is suspended, and the store's
        may be set back.
        """
        there = self.store_time(self.read_at) - before.store_time(before.read_at)
        return max(self.read_at - before.read_at, there)


class StoreLink:
    """Calls the store from one thread, so that the loop never waits for it."""

    def __init__(self, store: Store, host: Host, lease_seconds: float) -> None:
        self._store = store
        self._name = host.name
        #: Gives the host as it is now, without waiting; may be set.
        self.read_host: Callable[[], Host] = lambda: host
        #: Seconds that the host counts as live after a report; may be set.
        self.lease_seconds = lease_seconds
        #: The version of the fleet that this launcher goes by; may be set.
        self.fleet_version = 0
        #: The nodes that this launcher keeps; may be set.
        self.nodes: tuple[NodeReport, ...] = ()
        # What goes along with the next exchange.
        self._metrics: dict[str, Metrics | None] = {}
        self._canaries: list[Canary] = []
        self._clock_ahead = 0.0
        #: The name that the store's data had.
        self._data = ""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._closing = threading.Event()
        self.away = False

    async def call(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Run one store call. Raises StoreUnreachableError; logs the first failure."""
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._thread, self._guarded, function, *arguments)
        try:
            answer = await work
        except StoreUnreachableError as error:
            if not self.away:
                _log.warning("%s; the engines go on without it", error)
            self.away = True
            raise
        if self.away:
            _log.warning("Redis at %s answers again", self._store.url)
        self.away = False
        return answer

    def _guarded(self, function: Callable[..., _T], *arguments: Any) -> _T:
        try:
            with self._store.reachable():
                return function(*arguments)
        except redis.RedisError as error:
            # It loads its data, is read-only or out of memory.
            text = f"Redis at {self._store.url} refuses: {error}"
            raise StoreUnreachableError(text) from error

    async def next_incarnation(self, engine: str, last: int) -> int:
        """Count one more start after the last known one, and return its number.

        Raises StoreUnreachableError.
        """
        return await self.call(next_incarnation, self._store, engine, last)

    def queue_metrics(self, engine: str, metrics: Metrics | None) -> None:
        """Send an engine's metrics with the next exchange; None removes them."""
        self._metrics[engine] = metrics

    def queue_canary(self, canary: Canary) -> None:
        """Send what a canary took with the next exchange."""
        self._canaries.append(canary)

    async def exchange(
        self, reports: Sequence[EngineReport], removed: Sequence[str], now: float
    ) -> StoreView:
        """Renew the lease, send reports, read wishes and loads.

        Raises StoreUnreachableError.
        """
        await self._send_measured()
        return await self.call(self._exchange, reports, removed, now)

    async def _send_measured(self) -> None:
        """Send what was measured since the last exchange."""
        metrics, self._metrics = self._metrics, {}
        canaries, self._canaries = self._canaries, []
        try:
            if metrics:
                await self.call(report_metrics, self._store, metrics)
            if canaries:
                await self.call(add_canaries, self._store, canaries)
        except StoreUnreachableError:
            # Canaries are kept for the next time; metrics would be old by then.
            self._canaries = [*canaries, *self._canaries][-UNSENT_CANARIES:]
            raise

    def _exchange(
        self, reports: Sequence[EngineReport], removed: Sequence[str], now: float
    ) -> StoreView:
        store, host = self._store, self._name
        data = name_data(store)
        if self._data not in ("", data):
            # Before the report: control sees no host before it knows of the loss.
            note_data_loss(store, REPORTING_SECONDS)
        self._data = data
        # Read before writing: by its reports an engine is found that nobody keeps.
        engines = read_engines(store)
        for report in reports:
            report_engine(store, report)
        for engine in removed:
            if engine in engines and engines[engine].host == host:
                remove_engine(store, engine)
        # After the reports: a live host with old ones would look hung.
        report_of_host = replace(
            self.read_host(),
            fleet=self.fleet_version,
            clock_ahead_seconds=self._read_clock_ahead(),
            nodes=self.nodes,
        )
        report_host(store, report_of_host, self.lease_seconds)
        wishes, unread = read_all_wishes(store)
        led = {k: d for k, d in wishes.items() if host in _followers(d)}
        leads = any(d.spec.host == host and d.spec.followers for d in wishes.values())
        leads = leads or any(e.host == host and e.followers for e in engines.values())
        hosts = read_hosts(store) if led or leads or self.nodes else ()
        return StoreView(
            led=led,
            engines=engines,
            hosts=frozenset(each.name for each in hosts),
            nodes={(each.engine, each.node): each for h in hosts for each in h.nodes},
            wishes={key: d for key, d in wishes.items() if d.spec.host == host},
            unread=unread,
            elsewhere=frozenset(k for k, d in wishes.items() if d.spec.host != host),
            serving_elsewhere=frozenset(
                k for k, e in engines.items() if e.host != host and e.serves
            ),
            loads=read_loads(store),
            reported=frozenset(k for k, e in engines.items() if e.host == host),
            steered_at=read_steered(store)[0],
            data=data,
            # Read after the wishes: so a wish never comes without its model.
            fleet=read_applied_fleet(store),
            clock_offset=store.now() - time.monotonic(),
            read_at=now,
        )

    def _read_clock_ahead(self) -> float:
        """How far this host's clock is ahead of the store's, in seconds."""
        before = time.time()
        there = self._store.now()
        after = time.time()
        if after - before < CLOCK_READ_SECONDS:
            self._clock_ahead = round((before + after) / 2 - there, 1)
        return self._clock_ahead

    async def raise_alert(
        self, settings: Settings, trouble: Trouble, now: float
    ) -> None:
        """Tell people of a trouble. Raises StoreUnreachableError."""
        about, text, kind = trouble.about, trouble.text, trouble.kind
        await self.call(raise_alert, self._store, settings, about, text, now, kind)

    async def tell_by_hooks(self, settings: Settings, alert: AlertRecord) -> None:
        """Tell people of what does not stand in the store, once or again and again.

        Raises StoreUnreachableError.
        """
        await self.call(tell_by_hooks, settings, alert, self._store)

    async def samples(self, engine: str) -> tuple[Sample, ...]:
        """An engine's last requests. Raises StoreUnreachableError."""
        return await self.call(read_samples, self._store, engine)

    async def decisions(self, engine: str) -> list[dict[str, str]]:
        """Control's last decisions about an engine. Raises StoreUnreachableError."""
        return await self.call(last_decisions, self._store, engine)

    async def end_lease(self) -> None:
        """End the host's lease. Raises StoreUnreachableError."""
        await self.call(end_host_lease, self._store, self._name)

    async def publish_fleet(self, fleet: str, replaces: int) -> bool:
        """Write the applied fleet in place of version ``replaces``, if that is there.

        Raises StoreUnreachableError.
        """
        return await self.call(publish_fleet, self._store, fleet, replaces)

    async def provide_fleet(self, settings: Settings) -> None:
        """Write this host's fleet file to a store without a fleet.

        Raises StoreUnreachableError.
        """
        await self.call(provide, self._store, settings)

    def watch_changes(self, ring: Callable[[], None]) -> None:
        """Call ``ring`` in the loop when wishes or the fleet change, till ``close``."""
        loop = asyncio.get_running_loop()
        arguments = (lambda: loop.call_soon_threadsafe(ring),)
        threading.Thread(target=self._listen, args=arguments, daemon=True).start()

    def _listen(self, ring: Callable[[], None]) -> None:
        while not self._closing.is_set():
            try:
                with _subscription(self._store) as sub:
                    self._hear(sub, ring)
            except (redis.RedisError, OSError):
                # The launcher reads every second without the bell.
                self._closing.wait(1.0)
            except RuntimeError:
                return  # The loop has ended.

    def _hear(self, sub: Any, ring: Callable[[], None]) -> None:
        while not self._closing.is_set():
            message = sub.get_message(timeout=1.0)
            # Reports ring the bell as well, by the engine's name.
            if message and message["data"] in ("desired", "fleet"):
                ring()

    def close(self) -> None:
        """End both threads, without waiting for them."""
        self._closing.set()
        self._thread.shutdown(wait=False, cancel_futures=True)


def _followers(wish: Wish) -> list[str]:
    return [place.host for place in wish.spec.followers]


def _subscription(store: Store) -> Any:
    # redis-py's pubsub has no types.
    client: Any = store.client
    subscription = client.pubsub(ignore_subscribe_messages=True)
    subscription.subscribe(store.keys.changed)
    return subscription
