"""The whole fleet at one time, with what its real requests measured."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

from modelserver.inventory import Host
from modelserver.measured import EngineLoad
from modelserver.messaging.catalogue import (
    KINDS,
    Catalogue,
    CatalogueEntry,
    catalogue,
)
from modelserver.messaging.names import CONTROL_QUEUE
from modelserver.operations.hosted_runs import RunsStatus, read_runs_status
from modelserver.operations.traffic import Traffic, traffic
from modelserver.operations.waiting import find_absent, waiting_for
from modelserver.policy.orders import in_force
from modelserver.schedules import ScheduledWindow, find_window, windows_of
from modelserver.settings import Settings
from modelserver.store.fleet.alerts import open_alerts
from modelserver.store.fleet.applied import read_applied_fleet
from modelserver.store.fleet.availability import standings
from modelserver.store.fleet.control import read_steered, read_waiting, read_wishes
from modelserver.store.fleet.engines import read_engines
from modelserver.store.fleet.hosts import read_host_names, read_hosts
from modelserver.store.fleet.measurements import (
    CUT_OFF,
    read_all_counters,
    read_all_samples,
    read_model_times,
)
from modelserver.store.fleet.orders import orders
from modelserver.store.fleet.workers import (
    read_backlog,
    read_loads,
    read_submitters,
    read_workers,
)
from modelserver.store.histograms import TOOK, Times
from modelserver.store.messages.memory import read_note
from modelserver.store.server.state import Store
from modelserver.values import (
    EngineReport,
    EngineState,
    Kind,
    NodeReport,
    Order,
    Outcome,
    Wish,
)

#: Submitters of each queue that are told, those with the most messages.
SUBMITTERS_SHOWN = 20
#: What is shown for a model that is no longer part of the fleet.
LEFT_THE_FLEET = "it left the fleet; requests wait for it to come back"


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """One engine: its launcher's report, its load and its traffic."""

    id: str
    model: str
    host: str
    #: Whether its launcher reports; if not, the report is old.
    host_live: bool
    #: Whether control wants it.
    wanted: bool
    state: EngineState
    #: How often it was started so far.
    incarnation: int
    #: How often the launcher that runs now has started it.
    starts: int
    url: str
    gpus: tuple[int, ...]
    #: How many requests it gets at once.
    limit: int
    inflight: int
    #: Since when its oldest request is under way, in seconds.
    oldest_seconds: float
    traffic: Traffic
    #: All attempts at it since they were first counted.
    requests: int
    #: Those that failed by the engine's fault.
    errors: int
    prompt_tokens: int
    completion_tokens: int
    #: Answers that ``max_tokens`` cut off.
    cut_off: int
    #: How long those that went well took.
    durations: Times
    #: Since when it is in its state, in seconds since the epoch.
    since: float
    #: When it last gave a sign of life, in seconds since the epoch.
    alive_at: float
    #: Why it is in its state; "" if there is nothing to say.
    reason: str
    #: How far its start has come.
    progress: str
    #: For how long it produces no token although it has requests; 0 if it does.
    hung_seconds: int
    #: What changed in the fleet that it must be restarted for.
    stale: str
    #: Why it gets nothing new.
    hold: str
    #: The incarnation whose requests its workers have to run elsewhere.
    abort: int
    #: Path of its log, on its host.
    log: str
    #: Its nodes on other hosts, if it takes several.
    followers: tuple[NodeReport, ...]

    @property
    def hosts(self) -> tuple[str, ...]:
        """All hosts that it runs on, that which is asked first."""
        return (self.host, *(each.host for each in self.followers))


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """Requests that wait in a queue, and who can take them."""

    name: str
    #: How many requests wait.
    backlog: int
    #: How many live workers have a ready engine for it on their own host.
    workers: int
    #: Who has most messages in it, and how many; "" is nobody in particular.
    submitters: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One model of the fleet."""

    name: str
    kind: Kind
    #: How many of its engines take requests.
    ready: int
    #: How many engines control wants for it.
    wanted: int
    queue: QueueStatus
    #: Which of its engines have no place, and why.
    waiting_for: str = ""
    #: The hosts whose launchers those of them wait for: they do not report.
    absent_hosts: tuple[str, ...] = ()
    #: How it stood at control's last look: "serving", "starting", "waiting", "down", or
    #: "" if that is not known.
    standing: str = ""
    #: Why it stood so.
    because: str = ""
    #: Answers of its engines that ``max_tokens`` cut off.
    cut_off: int = 0
    #: The window of its schedule that is in force, "" for none.
    schedule: str = ""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker whose lease lives."""

    name: str
    host: str
    pid: int
    #: How many messages it has taken and not finished.
    held: int
    #: How many requests it has sent to engines.
    inflight: int
    #: The models that have a ready engine on its host.
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FleetStatus:
    """Which fleet is in force."""

    #: 0 as long as none was applied.
    version: int = 0
    #: Seconds since the epoch.
    applied_at: float = 0.0
    applied_by: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """The whole fleet at one time."""

    #: When it was read, in seconds since the epoch by the store's clock.
    at: float
    #: When control last looked at the fleet, by the same clock; 0 if it never did.
    steered_at: float
    #: Which controller that was.
    steered_by: str
    fleet: FleetStatus
    models: tuple[ModelStatus, ...]
    engines: tuple[EngineStatus, ...]
    #: The hosts whose launchers live.
    hosts: tuple[Host, ...]
    workers: tuple[WorkerStatus, ...]
    #: The queue of control's own tasks.
    control: QueueStatus
    #: Hosts that were here, report no more and have not said that they end.
    lost_hosts: tuple[str, ...] = ()
    #: What operators drain and pause now.
    orders: tuple[Order, ...] = ()
    #: How many alerts are open.
    alerts: int = 0
    #: How short the memory of Redis is, "" where it is not: then nothing new is taken.
    memory_short: str = ""
    #: Runs of ``batch submit``.
    runs: RunsStatus = field(default_factory=RunsStatus)

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values; a dataclass becomes an object."""
        return asdict(self)


#: The outcomes that are counted as requests.
_ATTEMPTS = tuple(each for each in Outcome if each.is_attempt)
#: Fields that an engine's status takes over from its launcher's report.
_REPORTED = (
    {field.name for field in fields(EngineReport)}
    & {field.name for field in fields(EngineStatus)}
)  # fmt: skip


def read_catalogue(store: Store, settings: Settings) -> Catalogue:
    """The models of the fleet in force, else those of the fleet file."""
    return _read_fleet(store, settings).catalogue


class _FleetRead(NamedTuple):
    catalogue: Catalogue
    status: FleetStatus
    #: Models that left with requests waiting.
    left: tuple[CatalogueEntry, ...]
    windows: Mapping[str, tuple[ScheduledWindow, ...]]


def _read_fleet(store: Store, settings: Settings) -> _FleetRead:
    text = read_applied_fleet(store)
    if not text:
        models = Catalogue.read(catalogue(settings.fleet))
        windows = {each.name: each.schedule for each in settings.fleet.specs()}
        return _FleetRead(models, FleetStatus(), (), windows)
    values = json.loads(text)
    left = [
        CatalogueEntry(name, Kind(kind))
        for name, kind in values["left"].items()
        if kind in KINDS
    ]
    return _FleetRead(
        Catalogue.read(values),
        FleetStatus(values["version"], values["at"], values["by"]),
        tuple(entry for entry in left if read_backlog(store, entry.name)),
        windows_of(values),
    )


def read_status(store: Store, settings: Settings) -> Status:
    """Read all of the fleet. Raises StoreUnreachableError."""
    with store.reachable():
        return _read_status(store, settings)


def _read_status(store: Store, settings: Settings) -> Status:
    models, fleet, left, windows = _read_fleet(store, settings)
    hosts, wishes = read_hosts(store), read_wishes(store)
    engines = _engines(store, models, wishes, {host.name for host in hosts})
    workers = _workers(read_workers(store), engines)
    takers = Counter(model for worker in workers for model in worker.models)
    steered_at, steered_by = read_steered(store)
    waiting, found, now = read_waiting(store), standings(store), store.now()
    counted = read_model_times(store, [each.name for each in (*models.models, *left)])

    ordered = in_force(orders(store), now)
    absent = find_absent(wishes, waiting, {host.name for host in hosts}, ordered)

    def queue(name: str, takers: int) -> QueueStatus:
        backlog = read_backlog(store, name)
        found = read_submitters(store, name) if backlog else {}
        most = dict(list(found.items())[:SUBMITTERS_SHOWN])
        return QueueStatus(name, backlog, takers, most)

    return Status(
        at=now,
        steered_at=steered_at,
        steered_by=steered_by,
        fleet=fleet,
        models=tuple(
            ModelStatus(
                entry.name,
                entry.kind,
                ready=sum(_ready(e) and e.model == entry.name for e in engines),
                wanted=sum(wish.spec.model == entry.name for wish in wishes.values()),
                queue=queue(entry.name, takers[entry.name]),
                waiting_for=LEFT_THE_FLEET
                if entry in left
                else waiting_for(entry.name, waiting),
                absent_hosts=() if entry in left else tuple(sorted(absent[entry.name])),
                standing=found.get(entry.name, {}).get("standing", ""),
                because=found.get(entry.name, {}).get("reason", ""),
                cut_off=counted[entry.name].get(CUT_OFF, 0),
                schedule=str(find_window(windows.get(entry.name, ()), now) or ""),
            )
            for entry in (*models.models, *left)
            if not entry.base
        ),
        engines=engines,
        hosts=hosts,
        workers=workers,
        control=queue(CONTROL_QUEUE, len(workers)),
        lost_hosts=tuple(sorted(read_host_names(store) - {h.name for h in hosts})),
        orders=ordered,
        alerts=len(open_alerts(store)),
        memory_short=read_note(store),
        runs=read_runs_status(store),
    )


def _ready(engine: EngineStatus) -> bool:
    return engine.state.serves and engine.host_live and not engine.hold


def _awaited(wish: Wish, live: set[str]) -> EngineReport:
    """An engine that is wanted and that no launcher has reported yet."""
    spec = wish.spec
    fact = "has not taken it up yet" if spec.host in live else "does not run"
    reason = f"the launcher of host {spec.host} {fact}"
    return EngineReport(
        spec.id,
        spec.model,
        spec.host,
        EngineState.PENDING,
        gpus=spec.gpus,
        reason=reason,
    )


def _engines(
    store: Store, models: Catalogue, wishes: Mapping[str, Wish], live: set[str]
) -> tuple[EngineStatus, ...]:
    reports, loads = read_engines(store), read_loads(store)
    awaited = [
        _awaited(wish, live) for engine, wish in wishes.items() if engine not in reports
    ]
    known = sorted([*reports.values(), *awaited], key=lambda e: (e.model, e.id))
    names = [engine.id for engine in known]
    totals, samples = read_all_counters(store, names), read_all_samples(store, names)
    engines = []
    for engine in known:
        entry = models.entry(engine.model)
        kind = entry.kind if entry else Kind.COMPLETION
        counters = totals[engine.id]
        load = loads.get(engine.id, EngineLoad(0, 0.0, 0.0))
        values = {name: getattr(engine, name) for name in _REPORTED}
        engines.append(
            EngineStatus(
                **values,
                host_live=engine.host in live,
                wanted=engine.id in wishes,
                inflight=load.inflight,
                oldest_seconds=load.oldest_seconds,
                traffic=traffic(samples[engine.id], kind, engine.incarnation),
                requests=sum(counters.get(each, 0) for each in _ATTEMPTS),
                errors=counters.get(Outcome.ENGINE_FAULT.value, 0),
                prompt_tokens=counters.get("prompt_tokens", 0),
                completion_tokens=counters.get("completion_tokens", 0),
                cut_off=counters.get("cut_off", 0),
                durations=TOOK.read(counters),
            )
        )
    return tuple(engines)


def _workers(
    reports: Mapping[str, Mapping[str, Any]], engines: Sequence[EngineStatus]
) -> tuple[WorkerStatus, ...]:
    ready = [(engine.host, engine.model) for engine in engines if _ready(engine)]
    return tuple(
        WorkerStatus(
            name=report["node"],
            host=report["host"],
            pid=report["pid"],
            held=report["held"],
            inflight=sum(load[0] for load in report["loads"].values()),
            models=tuple(sorted({m for host, m in ready if host == report["host"]})),
        )
        for report in reports.values()
    )
