"""The launcher's one loop: handle signals, talk to the store, keep the engines.

Nothing in the loop waits but the loop itself; signal handlers only queue.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

from launcher.alarms import OUTAGE_FILE, Alarms, OutageNote
from launcher.engine.keeper import Keeper
from launcher.engine.node_keepers import NodeKeepers
from launcher.engine.stop import end_all
from launcher.engine_types import ABSENT
from launcher.fleet_sync import FleetSync
from launcher.host.process import EngineProcess, head_lives
from launcher.host.records import Record
from launcher.host.resources import HostResources
from launcher.store_link import StoreView
from launcher.wishes import WishReader, find_contradiction
from modelserver.errors import ConfigurationError, StoreUnreachableError
from modelserver.values import EngineReport, Kind, ModelSpec, Wish

_log = logging.getLogger(__name__)

#: Seconds from one tick of the loop to the next, where nothing wakes it before.
LOOP_SECONDS = 0.25
#: Seconds after which wishes are read and the lease is renewed, where no bell rings.
EXCHANGE_SECONDS = 1.0
#: Seconds after which an engine is reported again, though nothing about it changed.
ENGINE_REPORT_SECONDS = 2.0
#: When and as what an engine that was never reported was last reported.
NOT_REPORTED: tuple[float, EngineReport | None] = (0.0, None)
#: The signals that end the launcher and leave its engines; SIGHUP, as of a terminal
#: that is closed, only where it is not ignored (nohup).
LEAVING = (signal.SIGQUIT, signal.SIGHUP)
#: All that end the launcher.
SIGNALS = (signal.SIGTERM, signal.SIGINT, *LEAVING)


class Supervisor:
    """Makes the wishes for one host true until it is told to end."""

    def __init__(self, fleet_sync: FleetSync, resources: HostResources) -> None:
        self._fleet_sync = fleet_sync
        self._resources = resources
        note = OutageNote(resources.logs.parent / OUTAGE_FILE)
        self._alarms = Alarms(resources.host, fleet_sync, resources.link, note)
        self._keepers: dict[str, Keeper] = {}
        #: The nodes of engines that are led from other hosts.
        self._nodes = NodeKeepers(resources)
        self._view = StoreView()
        self._signals: list[int] = []
        self._bell = True
        self._exchange: asyncio.Task[None] | None = None
        self._next_exchange = 0.0
        self._sent: dict[str, tuple[float, EngineReport | None]] = {}
        self._removed: set[str] = set()
        self._reader = WishReader()
        #: By engine: why its last wish was left aside, "" where it was not.
        self._disobeyed: dict[str, str] = {}
        self._adopted = False
        #: Engines of an earlier launcher that could not be looked at yet.
        self._unadopted: dict[str, Record] = {}
        #: What ends the rest of those that are dead.
        self._burials: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._leaving = False

    def ring(self) -> None:
        """Read the wishes now."""
        self._bell = True
        self._resources.wake()

    async def run(self) -> None:
        """Keep the engines until a signal ends it; see ``_handle_signals``."""
        loop = asyncio.get_running_loop()
        ends = [each for each in SIGNALS if not _is_ignored(each)]
        for number in ends:
            loop.add_signal_handler(number, self._queue_signal, number)
        try:
            await self._adopt(self._resources.records.read_all())
            self._resources.link.watch_changes(self.ring)
            while not self._leaving:
                self._tick(time.monotonic())
                busy = self._keepers or self._removed or self._nodes
                if self._stopping and not busy:
                    break
                await self._pause()
            await self._end()
        finally:
            for number in ends:
                loop.remove_signal_handler(number)

    def _queue_signal(self, number: int) -> None:
        self._signals.append(number)
        self._resources.wake()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(LOOP_SECONDS):
                await self._resources.woken.wait()
        except TimeoutError:
            pass
        self._resources.woken.clear()

    def _tick(self, now: float) -> None:
        """Look at all that there is; what fails keeps nothing else from its turn."""
        guard = self._resources.troubles.guard
        self._handle_signals()
        self._adopt_living()
        self._talk_to_store(now)
        for name, keeper in list(self._keepers.items()):
            with guard(f"engine {name}", "keep it"):
                keeper.tick(now, self._view)
                if keeper.gone:
                    self._let_go(name)
        with guard("host", "keep the nodes that other hosts lead"):
            if self._nodes.tick(now, self._view):
                self._bell = True  # Their leaders are to know at once.

    def _let_go(self, name: str) -> None:
        del self._keepers[name]
        self._sent.pop(name, None)
        self._resources.troubles.forget(f"engine {name}")
        if name not in self._view.elsewhere:
            self._removed.add(name)
        self._resources.wake()

    def _handle_signals(self) -> None:
        """Some leave the engines to run; others end them, the second at once."""
        while self._signals:
            number = signal.Signals(self._signals.pop(0))
            if number in LEAVING:
                count = len(self._keepers) + len(self._nodes)
                _log.info("%s: leaving %d engines to run", number.name, count)
                self._leaving = True
                return
            at_once, self._stopping = self._stopping, True
            how = "stopping engines at once" if at_once else "draining engines"
            _log.info("%s: %s", number.name, how)
            for keeper in self._keepers.values():
                keeper.stop("the launcher ends", at_once=at_once)
            self._nodes.stop(at_once)

    # The store.

    def _talk_to_store(self, now: float) -> None:
        if self._exchange is not None:
            if not self._exchange.done():
                return
            task, self._exchange = self._exchange, None
            went = False
            with self._resources.troubles.guard("host", "talk to the store"):
                task.result()
                self._apply_wishes(now)
                went = True
            if not went:
                return  # The next tick tries again.
        reports = list(self._due_reports(now))
        if self._bell or reports or self._removed or now >= self._next_exchange:
            self._bell = False
            self._next_exchange = now + EXCHANGE_SECONDS
            self._exchange = asyncio.create_task(self._exchange_once(reports, now))
            self._exchange.add_done_callback(lambda _: self._resources.wake())

    def _due_reports(self, now: float) -> Iterable[EngineReport]:
        if not self._view.known:
            return  # The store's clock is not known.
        for name, keeper in self._keepers.items():
            if not keeper.is_reported or not self._may_report(keeper, now):
                continue
            report = None
            with self._resources.troubles.guard(f"engine {name}", "report it"):
                report = keeper.report(self._view)
            if report is None:
                continue
            if trouble := self._resources.troubles.about(f"engine {name}"):
                report = replace(report, reason=trouble)
            at, last = self._sent.get(name, NOT_REPORTED)
            if now - at >= ENGINE_REPORT_SECONDS or _changed(last, report):
                yield report

    def _may_report(self, keeper: Keeper, now: float) -> bool:
        """Whether no other host's launcher reports it."""
        if keeper.spec.id not in self._view.elsewhere:
            return True
        kept = self._reader.is_kept(self._view, keeper.spec.id, now)
        return kept and keeper.life.state.serves

    async def _exchange_once(self, reports: list[EngineReport], now: float) -> None:
        removed = tuple(self._removed)
        link = self._resources.link
        try:
            before, self._view = (
                self._view,
                await link.exchange(reports, removed, now),
            )
            if not before.known and self._adopted:
                # Their wishes may have been lost since an earlier launcher read them.
                self._reader.expect_wishes(now)
                self._reader.expect_return(now)
            elif before.known and self._view.seconds_after(before) > link.lease_seconds:
                self._reader.expect_return(now)
            await self._fleet_sync.restore(self._view)
            await self._alarms.look(self._view, now)
        except StoreUnreachableError as error:
            self._alarms.note_outage(str(error), time.monotonic(), time.time())
            # It may come back empty: then all is reported again.
            self._sent = dict.fromkeys(self._sent, NOT_REPORTED)
            self._next_exchange = time.monotonic() + EXCHANGE_SECONDS
            if self._stopping and not self._keepers:
                self._removed.clear()
            return
        if self._reader.note(self._view, now):
            _log.warning("the store lost its data; control must repeat its wishes")
        self._removed.difference_update(removed)
        kept = [each for each in reports if each.id in self._keepers]
        self._sent |= {report.id: (now, report) for report in kept}

    def _apply_wishes(self, now: float) -> None:
        models = self._fleet_sync.models
        if self._fleet_sync.update(self._view):
            models = self._fleet_sync.models
            for keeper in self._keepers.values():
                # A model that left stays as it was until control ends its engines.
                keeper.model = models.get(keeper.spec.model, keeper.model)
        if self._stopping or not self._view.known:
            return
        led = {k: each for k, each in self._view.led.items() if self._may_obey(each)}
        self._nodes.apply_wishes(led, models, self._keepers)
        for name, wish in self._view.wishes.items():
            with self._resources.troubles.guard(f"engine {name}", "obey its wish"):
                self._apply_wish(name, wish, models)
        engines = {name: each.may_serve for name, each in self._keepers.items()}
        unwanted = self._reader.find_unwanted(self._view, engines, now)
        for name, reason in unwanted.items():
            self._keepers[name].stop(reason)
        self._removed |= self._reader.find_forgotten(self._view, self._keepers, now)

    def _apply_wish(
        self, name: str, wish: Wish, models: Mapping[str, ModelSpec]
    ) -> None:
        taken = name in self._nodes or name in self._unadopted
        if taken or not self._may_obey(wish):
            return
        if name not in self._keepers:
            model = models.get(wish.spec.model) or _absent(wish.spec.model)
            self._keepers[name] = Keeper(wish.spec, model, self._resources)
        self._keepers[name].apply_wish(wish)

    def _may_obey(self, wish: Wish) -> bool:
        name = wish.spec.id
        fleet = self._fleet_sync
        problem = find_contradiction(
            wish, fleet.pins, fleet.models, self._resources.addresses()
        )
        # A wish of before the last `apply` is left aside until control has looked.
        if problem and self._disobeyed.get(name) != problem:
            _log.warning("engine=%s a wish is left aside: %s", name, problem)
        self._disobeyed[name] = problem
        return not problem

    # Adoption and the end.

    async def _adopt(self, records: Iterable[Record]) -> None:
        """Go on with engines that live, and end what is left of the others."""
        self._unadopted = {record.spec.id: record for record in records}
        self._adopt_living()
        await asyncio.gather(*self._burials)

    def _adopt_living(self) -> None:
        """The same, of each engine; where that fails it is tried again."""
        for name, record in list(self._unadopted.items()):
            with self._resources.troubles.guard(f"engine {name}", "adopt it"):
                # One whose model has left the fleet goes by its record: it is drained.
                model = self._fleet_sync.models.get(record.spec.model) or record.model
                if model and record.node:
                    self._nodes.adopt(record, model)
                elif model and head_lives(record.process):
                    self._adopt_head(record, model)
                else:
                    burial = asyncio.create_task(self._bury(record))
                    self._burials.add(burial)
                    burial.add_done_callback(self._burials.discard)
                del self._unadopted[name]

    async def _bury(self, record: Record) -> None:
        name = record.spec.id
        _log.info("engine=%s incarnation=%d is dead", name, record.incarnation)
        with self._resources.troubles.guard(f"engine {name}", "end what is left of it"):
            uuids = record.uuids or record.spec.uuids
            process, survivors = (
                EngineProcess(record.process),
                self._resources.survivors,
            )
            await asyncio.to_thread(end_all, name, process, uuids, survivors)
            self._resources.records.remove(name)

    def _adopt_head(self, record: Record, model: ModelSpec) -> None:
        name = record.spec.id
        try:
            keeper = Keeper(record.spec, model, self._resources)
        except ConfigurationError as error:
            # A newer launcher started it, and may be back; its engine serves on.
            told = "engine=%s is not adopted and left alone: %s, or upgrade this host"
            _log.warning(told, name, error)
            return
        keeper.adopt(record)
        self._keepers[name] = keeper
        self._adopted = True

    async def _end(self) -> None:
        guard = self._resources.troubles.guard
        if self._exchange is not None:
            with guard("host", "talk to the store"):
                await self._exchange
        if self._leaving:
            for name, keeper in self._keepers.items():
                with guard(f"engine {name}", "leave it running"):
                    keeper.leave_running()
            return
        try:
            await self._resources.link.end_lease()
        except StoreUnreachableError:
            _log.warning(
                "host=%s the store is away; the reports of this host stay in it",
                self._resources.host,
            )


def _is_ignored(number: signal.Signals) -> bool:
    return number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN


def _changed(last: EngineReport | None, report: EngineReport) -> bool:
    if last is None:
        return True
    timeless = [replace(each, since=0.0, alive_at=0.0) for each in (last, report)]
    return timeless[0] != timeless[1]


def _absent(name: str) -> ModelSpec:
    return ModelSpec(name=name, kind=Kind.COMPLETION, path="", engine=ABSENT)
