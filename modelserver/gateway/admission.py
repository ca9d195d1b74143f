"""Refuses at once what the fleet cannot answer in its deadline."""

import asyncio
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean

from celery import Celery
from celery.utils.nodenames import anon_nodename
from prometheus_client import CollectorRegistry, Counter
from redis.exceptions import RedisError

from modelserver.errors import StoreUnreachableError
from modelserver.gateway.bodies import Asked
from modelserver.gateway.faults import Fault, Refused
from modelserver.gateway.headers import Caller
from modelserver.gateway.waiting import (
    ModelLoad,
    Newcomer,
    answered_of_late,
    find_rate,
    find_ready_seconds,
    find_retry_seconds,
)
from modelserver.messaging.catalogue import Catalogue
from modelserver.policy.health.memory import find_load_seconds
from modelserver.settings import Settings
from modelserver.store import Store, connect
from modelserver.store.fleet.control import HEALTH_MEMORY, read_memory
from modelserver.store.fleet.engines import read_engines
from modelserver.store.fleet.measurements import read_all_samples
from modelserver.store.fleet.workers import loads_of, read_queued, read_workers
from modelserver.store.keys import list_name, priority_step
from modelserver.values import EngineState

#: A model is looked at again after so many seconds, and the fleet's own deadline.
LOOK_SECONDS = 1.0
#: A look that is older is waited for, in seconds.
OLD_SECONDS = 10.0
REFUSED_HELP = "Requests refused since they could not be answered in their deadline."

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Seen:
    """What is known of one model."""

    load: ModelLoad | None = None
    #: Requests that were let in since the look.
    sent: int = 0
    looking: asyncio.Task[None] | None = None


class Admission:
    """Lets requests in whose deadline can be met, or of which nobody knows. On a loop.

    ``look`` reads a model's load, and may block; None where nothing is to be refused.
    ``find_default``, which may block as well, is the deadline of a request that has
    none, None for none.
    """

    def __init__(
        self,
        look: Callable[[str], ModelLoad | None],
        find_default: Callable[[], float | None],
        registry: CollectorRegistry,
    ) -> None:
        self._look = look
        self._find_default = find_default
        self._default: float | None = None
        self._default_look_at = 0.0
        #: By model of the fleet.
        self._seen: defaultdict[str, _Seen] = defaultdict(_Seen)
        name = "modelserver_gateway_refused"
        self._refused = Counter(name, REFUSED_HELP, ["model"], registry=registry)

    async def check(self, asked: Asked, caller: Caller, patience: float | None) -> None:
        """Raises Refused for what cannot be answered in its deadline.

        Nor is a client waited for longer than it has ``patience``, in seconds.
        """
        if caller.idempotency_key:
            return  # A repeat may find its answer there.
        limits = (caller.deadline or await self._fleets_deadline(), patience)
        deadline = min((each for each in limits if each), default=math.inf)
        if deadline == math.inf:
            return
        seen = await self._up_to_date(asked.model)
        if seen.load is None:
            return
        calls, now = len(asked.calls), time.monotonic()
        # As Celery names a sender that does not say who it is.
        name = list_name(caller.name or anon_nodename())
        step = priority_step(caller.priority)
        comer = Newcomer(step, name, calls, deadline)
        again = find_retry_seconds(seen.load, comer, seen.sent, now)
        if again is None:
            seen.sent += calls
            return
        self._refused.labels(asked.model).inc()
        fact = f"has more to answer than it can within {deadline:g} s"
        if not seen.load.places:
            fact = f"cannot answer within {deadline:g} s: its engine still starts"
        text = (
            f"{asked.model} {fact}; send the request again in {again} s, or allow it "
            "more time"
        )
        headers = {"Retry-After": str(again)}
        code = "rate_limit_exceeded"
        raise Refused(Fault(429, text, "requests", code=code, headers=headers))

    async def _fleets_deadline(self) -> float | None:
        if time.monotonic() > self._default_look_at:
            # Others go by the last look meanwhile.
            self._default_look_at = time.monotonic() + LOOK_SECONDS
            self._default = await asyncio.to_thread(self._find_default)
        return self._default

    async def _up_to_date(self, model: str) -> _Seen:
        seen = self._seen[model]
        age = time.monotonic() - seen.load.at if seen.load else math.inf
        if age > LOOK_SECONDS and seen.looking is None:
            seen.looking = asyncio.create_task(self._look_again(model, seen))
        if age > OLD_SECONDS and seen.looking:
            await asyncio.shield(seen.looking)
        return seen

    async def _look_again(self, model: str, seen: _Seen) -> None:
        before, load = seen.sent, None
        try:
            load = await asyncio.to_thread(self._look, model)
        except Exception:
            # Whoever asks is let in, as where nothing is known.
            logger.exception("the load of %s cannot be read", model)
        seen.load, seen.looking = load, None
        seen.sent -= before
        if load is None:
            self._seen.pop(model, None)  # Clients may name models without end.


class LoadReader:
    """Reads what a model has to do, and what it can. Blocks."""

    def __init__(self, settings: Settings, app: Celery) -> None:
        self._settings = settings
        self._app = app
        self._store: Store | None = None

    def find_default(self) -> float | None:
        """The deadline of a request that has none, in seconds; None for none."""
        try:
            catalogue: Catalogue = self._app.modelserver_models()
        except StoreUnreachableError:
            return None  # The request cannot be sent either, which tells the client.
        return catalogue.defaults.get("deadline_seconds")

    def __call__(self, model: str) -> ModelLoad | None:
        """The load; None for a model that is down or unknown, and without Redis."""
        catalogue: Catalogue = self._app.modelserver_models()
        queue = catalogue.queue(model)
        if catalogue.entry(model) is None or queue in catalogue.down:
            return None
        try:
            store = self._store = self._store or connect(self._settings)
            with store.reachable():
                return self._read(store, queue)
        except (StoreUnreachableError, RedisError):
            # An embedded server may come back with another address.
            self._store = None
            return None

    def _read(self, store: Store, model: str) -> ModelLoad:
        at, now, workers = time.monotonic(), store.now(), read_workers(store)
        hosts = {report["host"] for report in workers.values()}
        engines = [each for each in read_engines(store).values() if each.model == model]
        ready = [each for each in engines if each.is_given_work and each.host in hosts]
        if not ready:
            starting = [e for e in engines if e.state is EngineState.STARTING]
            took = _find_load_seconds(store, model) if starting else None
            return ModelLoad(at, ready_seconds=find_ready_seconds(starting, took, now))
        loads = loads_of(workers)
        samples = read_all_samples(store, [each.id for each in ready])
        seconds = [
            sample.seconds
            for each in samples.values()
            for sample in answered_of_late(each, now)
        ]
        return ModelLoad(
            at,
            queued=read_queued(store, model),
            places=sum(each.limit for each in ready),
            inflight=sum(loads[e.id].inflight for e in ready if e.id in loads),
            rate=sum(find_rate(each, now) for each in samples.values()),
            mean_seconds=mean(seconds) if seconds else 0.0,
            quickest_seconds=min(seconds, default=0.0),
        )


def _find_load_seconds(store: Store, model: str) -> float | None:
    return find_load_seconds(read_memory(store).get(HEALTH_MEMORY, ""), model)
