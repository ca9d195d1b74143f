"""The whole fleet at one time, as the page and ``modelserver top`` show it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

from modelserver.measured import Sample
from modelserver.operations.check import Check
from modelserver.operations.host_checks import check_beat
from modelserver.operations.incidents import Incident, read_incidents
from modelserver.operations.status import EngineStatus, ModelStatus, Status, read_status
from modelserver.page.figures import KeyUse, QueueHistory, Waiting, answer_rate
from modelserver.policy.health.memory import engine_memories
from modelserver.runs.hosting.telling import RunView
from modelserver.runs.listed import (
    ListedRun,
    in_order,
    list_program_run,
    list_submitted,
)
from modelserver.settings import Settings
from modelserver.store import Store
from modelserver.store.fleet.alerts import AlertRecord, open_alerts
from modelserver.store.fleet.api_keys import ApiKey, read_api_keys, read_books
from modelserver.store.fleet.control import HEALTH_MEMORY, read_memory
from modelserver.store.fleet.decisions import recent_decisions, subjects_of
from modelserver.store.fleet.measurements import read_all_samples
from modelserver.store.fleet.workers import read_oldest
from modelserver.store.runs.hosted import (
    HostedRun,
    ended_ids,
    open_ids,
    read_holders,
    read_hosted,
)
from modelserver.store.runs.programs import read_program_runs

#: Runs that have ended and are shown, the last ones.
ENDED_SHOWN = 10
#: Days of the books that are summed up.
BOOK_DAYS = 7


@dataclass(frozen=True, slots=True)
class EngineCard:
    """An engine with what was measured of it."""

    status: EngineStatus
    #: Its last requests, newest first.
    samples: tuple[Sample, ...] = ()
    #: Answers a second.
    rate: float = 0.0
    #: What control makes of it, "" before it has looked.
    health: str = ""
    #: How many times as long as on its peers requests take; None where nobody knows.
    against_peers: float | None = None
    #: What this host kept when it last hung or died.
    incident: Incident | None = None


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A model with its engines."""

    status: ModelStatus
    engines: tuple[EngineCard, ...]
    waiting: Waiting


@dataclass(frozen=True, slots=True)
class RunCard:
    """A submitted run with how far it is."""

    found: HostedRun
    view: RunView
    listed: ListedRun


@dataclass(frozen=True, slots=True)
class KeyCard:
    """An API key with what it used."""

    key: ApiKey
    today: KeyUse
    week: KeyUse


@dataclass(frozen=True, slots=True)
class FleetReading:
    """All that the page shows."""

    status: Status
    #: Whether control looks as often as it should.
    beat: Check
    models: tuple[ModelCard, ...] = ()
    #: Engines of models that left as well.
    engines: tuple[EngineCard, ...] = ()
    runs: tuple[RunCard, ...] = ()
    #: The same, and those that programs carry out themselves, as a list shows them.
    listed_runs: tuple[ListedRun, ...] = ()
    keys: tuple[KeyCard, ...] = ()
    #: Alerts that stand, oldest first.
    alerts: tuple[AlertRecord, ...] = ()
    #: Decisions, newest first, as they are logged.
    decisions: tuple[Mapping[str, str], ...] = field(default=(), repr=False)

    def decisions_about(self, target: str) -> list[Mapping[str, str]]:
        """Those about an engine or a model, newest first."""
        return [each for each in self.decisions if target in subjects_of(each)]


@dataclass(slots=True)
class FleetReader:
    """Reads the fleet again and again, and remembers what its queues were like."""

    settings: Settings
    _queues: dict[str, QueueHistory] = field(default_factory=dict)

    def read(self, store: Store) -> FleetReading:
        """All of it as it is now. Raises StoreUnreachableError."""
        status, rules = read_status(store, self.settings), self.settings.fleet.rules
        with store.reachable():
            runs = _run_cards(store, status.at)
            engines = _engine_cards(store, self.settings, status)
            return FleetReading(
                status,
                check_beat(status.at, status.steered_at, rules.steer_seconds),
                models=self._model_cards(store, status, engines),
                engines=engines,
                runs=runs,
                listed_runs=_listed_runs(store, runs, status.at),
                keys=_key_cards(store, status.at),
                alerts=open_alerts(store),
                decisions=tuple(recent_decisions(store)),
            )

    def _model_cards(
        self, store: Store, status: Status, engines: Sequence[EngineCard]
    ) -> tuple[ModelCard, ...]:
        names = [model.name for model in status.models]
        self._queues = {name: self._queues.get(name, QueueHistory()) for name in names}
        oldest = read_oldest(store, names)
        cards = []
        for model in status.models:
            own = tuple(e for e in engines if e.status.model == model.name)
            queue = self._queues[model.name]
            queue.note(status.at, model.queue.backlog)
            rate, since = sum(each.rate for each in own), oldest[model.name]
            waiting = queue.waiting(status.at, rate, since)
            cards.append(ModelCard(model, own, waiting))
        return tuple(cards)


def _engine_cards(
    store: Store, settings: Settings, status: Status
) -> tuple[EngineCard, ...]:
    samples = read_all_samples(store, [each.id for each in status.engines])
    judged = engine_memories(read_memory(store).get(HEALTH_MEMORY, ""))
    incidents = {each.engine: each for each in read_incidents(settings.run_dir)}
    cards = []
    for engine in status.engines:
        own = judged.get(engine.id)
        cards.append(
            EngineCard(
                engine,
                samples[engine.id],
                answer_rate(samples[engine.id], status.at),
                str(own.health) if own else "",
                math.exp(own.usual) if own and own.usual else None,
                incidents.get(engine.id),
            )
        )
    return tuple(cards)


def _run_cards(store: Store, now: float) -> tuple[RunCard, ...]:
    ids = [*open_ids(store), *ended_ids(store)[:ENDED_SHOWN]]
    holders, cards = read_holders(store), []
    for found in read_hosted(store, ids, whole=True):
        view = RunView(found)
        cards.append(RunCard(found, view, list_submitted(found, view, holders, now)))
    return tuple(cards)


def _listed_runs(
    store: Store, cards: Sequence[RunCard], now: float
) -> tuple[ListedRun, ...]:
    programs = (list_program_run(each, now) for each in read_program_runs(store))
    return tuple(in_order([*(each.listed for each in cards), *programs], ENDED_SHOWN))


def _key_cards(store: Store, now: float) -> tuple[KeyCard, ...]:
    keys = read_api_keys(store)
    if not keys:
        return ()
    books = read_books(store, BOOK_DAYS)
    today = str(datetime.fromtimestamp(now, timezone.utc).date())
    cards = []
    for key in keys:
        own = [page for page in books if page.key == key.name]
        of_today = KeyUse.of(page for page in own if page.day == today)
        cards.append(KeyCard(key, of_today, KeyUse.of(own)))
    return tuple(cards)
