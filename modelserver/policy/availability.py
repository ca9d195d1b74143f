"""Whether a model can answer now, and what its requests should do if it cannot. Pure.

A model is down only when no engine of it serves or starts for the first time. A model
that sleeps is not down, because a request wakes it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from modelserver.decoding import decode
from modelserver.policy.snapshot import Snapshot
from modelserver.python310 import StrEnum
from modelserver.values import EngineReport, EngineState, Json, ModelSpec

#: The states of an engine that has died.
FAILED = frozenset({EngineState.BACKOFF, EngineState.FATAL})


class ModelStanding(StrEnum):
    """Whether a model can answer."""

    SERVING = "serving"  # an engine of it is ready
    STARTING = "starting"  # an engine is on its way
    WAITING = "waiting"  # it sleeps, or no engine has begun to start
    DOWN = "down"  # nothing can be expected of it


class RequestAdvice(StrEnum):
    """What a request should do; the values other than GO are those of ``when_down``."""

    GO = "go"
    WAIT = "wait"
    FALLBACK = "fallback"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Outage:
    """What is remembered of a model without a ready engine."""

    #: Since when it has had none; None while it has one, or sleeps.
    since: float | None = None
    #: Whether an engine of it has died since then.
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a model can answer, and what its requests should do."""

    standing: ModelStanding
    #: Why, for people.
    reason: str = ""
    #: Since when it has had no ready engine.
    since: float | None = None
    #: What a request should do.
    then: RequestAdvice = RequestAdvice.GO
    #: The model to which requests go instead, "" for none.
    fallback: str = ""


def observe(
    outage: Outage, model: ModelSpec, snapshot: Snapshot, backlog: int, now: float
) -> Outage:
    """The outage after one look; to be kept until the next."""
    engines = _engines(model, snapshot)
    if any(_answers(each, snapshot) for each in engines) or _sleeps(
        model, snapshot, backlog
    ):
        return Outage()
    # The server's clock may have been set back.
    since = now if outage.since is None else min(outage.since, now)
    failed = any(engine.state in FAILED for engine in engines)
    return Outage(since, outage.failed or failed)


def availability(
    model: ModelSpec,
    snapshot: Snapshot,
    now: float,
    outage: Outage | None = None,
    waiting: str = "",
) -> Availability:
    """Whether a model can answer, by this snapshot.

    ``outage`` is what ``observe`` remembers; without it the times that engines report
    count, and a model without engines is never down. ``waiting`` is why an engine of it
    has no place, where placement gave a reason.
    """
    engines = _engines(model, snapshot)
    serving = [engine for engine in engines if _answers(engine, snapshot)]
    if serving:
        return Availability(ModelStanding.SERVING, f"{len(serving)} ready")
    if outage is None:
        outage = _outage_by_reports(engines)
    if not engines and outage.since is None:
        why = "asleep; a request wakes it" if not model.min_engines else "no engine yet"
        return Availability(ModelStanding.WAITING, why, None, RequestAdvice.WAIT)
    loading = [engine for engine in engines if engine.state is EngineState.STARTING]
    if loading and not outage.failed:
        return Availability(
            ModelStanding.STARTING, _why(loading, ""), outage.since, RequestAdvice.WAIT
        )
    late = outage.since is not None and now - outage.since >= model.down_after_seconds
    lonely = {e.host for e in engines if e.serves and not snapshot.has_worker(e.host)}
    missing = [f"host {host} has no worker; start one there" for host in sorted(lonely)]
    wishes = (snapshot.wishes[engine.id] for engine in engines)
    held = {wish.hold for wish in wishes if wish.drained and wish.hold not in waiting}
    why = _why(engines, "; ".join(filter(None, (waiting, *sorted(held), *missing))))
    if late and outage.since is not None:
        found = f"no ready engine for {now - outage.since:.0f} s: {why}"
        then = RequestAdvice(model.when_down)
        return Availability(
            ModelStanding.DOWN, found, outage.since, then, _fallback(model)
        )
    standing = (
        ModelStanding.STARTING if outage.failed or loading else ModelStanding.WAITING
    )
    return Availability(standing, why, outage.since, RequestAdvice.WAIT)


def _fallback(model: ModelSpec) -> str:
    return model.fallback if model.when_down == RequestAdvice.FALLBACK else ""


def _engines(model: ModelSpec, snapshot: Snapshot) -> list[EngineReport]:
    """Its engines on live hosts that are wanted and do not end."""
    live = {host.name for host in snapshot.hosts}
    ending = (EngineState.DRAINING, EngineState.STOPPED)
    found = [
        engine
        for engine in snapshot.engines.values()
        if engine.model == model.name
        and engine.host in live
        and engine.id in snapshot.wishes
        and engine.state not in ending
    ]
    return sorted(found, key=lambda engine: engine.id)


def _answers(engine: EngineReport, snapshot: Snapshot) -> bool:
    """Whether it serves, its host has a worker, and no operator keeps this from it."""
    is_drained = snapshot.wishes[engine.id].drained
    return engine.serves and snapshot.has_worker(engine.host) and not is_drained


def _sleeps(model: ModelSpec, snapshot: Snapshot, backlog: int) -> bool:
    wishes = (wish.spec.model for wish in snapshot.wishes.values())
    return not model.min_engines and not backlog and model.name not in set(wishes)


def _outage_by_reports(engines: list[EngineReport]) -> Outage:
    """The outage by the times that the engines report."""
    if not engines:
        return Outage()
    failed = any(engine.state in FAILED for engine in engines)
    return Outage(max(max(e.since, e.alive_at) for e in engines), failed)


def _why(engines: list[EngineReport], waiting: str) -> str:
    parts = [
        f"{engine.id} is {engine.state}" + (f": {_said(engine)}" * bool(_said(engine)))
        for engine in engines
    ]
    if waiting:
        parts.append(waiting)
    return "; ".join(parts) or "it has no engine"


def _said(engine: EngineReport) -> str:
    return engine.reason or engine.progress


def to_json(outages: Mapping[str, Outage]) -> dict[str, Json]:
    """Outages by model as plain values."""
    return {name: asdict(outage) for name, outage in outages.items()}


def from_json(values: Mapping[str, Json]) -> dict[str, Outage]:
    """The outages that ``to_json`` gave."""
    return {name: decode(Outage, each) for name, each in values.items()}
