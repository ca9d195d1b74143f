"""Whether a model can answer now, and what its requests should do if it cannot. Pure.

A model is down only when nothing promising is under way for it: no engine serves, and
none loads but those that failed before. Asleep is not down, because a request wakes it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

from modelserver.decoding import decode
from modelserver.policy.snapshot import Snapshot
from modelserver.values import EngineReport, EngineState, Json, ModelSpec

#: What an engine does that has died.
FAILED = frozenset({EngineState.BACKOFF, EngineState.FATAL})


class ModelStanding(StrEnum):
    """How a model stands."""

    SERVING = "serving"
    STARTING = "starting"
    WAITING = "waiting"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Outage:
    """What is remembered of a model without a ready engine.

    ``since`` is when it was first missed, None while nothing is amiss; ``failed``
    whether an engine of it has died since then.
    """

    since: float | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Availability:
    """How a model stands, and since when it does not serve.

    ``then`` is what a request should do: "go" where it serves, else "wait", "fallback"
    (to the model ``fallback``) or "fail".
    """

    standing: ModelStanding
    reason: str = ""
    since: float | None = None
    then: str = "go"
    fallback: str = ""


def observe(
    outage: Outage, model: ModelSpec, snapshot: Snapshot, backlog: int, now: float
) -> Outage:
    """The outage as it is after one look; to be kept from one look to the next."""
    engines = _engines(model, snapshot)
    if any(engine.serves for engine in engines) or _sleeps(model, snapshot, backlog):
        return Outage()
    since = now if outage.since is None else outage.since
    failed = any(engine.state in FAILED for engine in engines)
    return Outage(since, outage.failed or failed)


def availability(
    model: ModelSpec,
    snapshot: Snapshot,
    now: float,
    outage: Outage | None = None,
    waiting: str = "",
) -> Availability:
    """How a model stands by this snapshot.

    ``outage`` is what ``observe`` remembers; without it the engines' own times count,
    and a model without engines never counts as down. ``waiting`` is why an engine of it
    has no place, where placement gave a reason.
    """
    engines = _engines(model, snapshot)
    serving = [engine for engine in engines if engine.serves]
    if serving:
        return Availability(ModelStanding.SERVING, f"{len(serving)} ready")
    if outage is None:
        outage = _guessed(engines)
    if not engines and outage.since is None:
        why = "asleep; a request wakes it" if not model.min_engines else "no engine yet"
        return Availability(ModelStanding.WAITING, why, None, "wait")
    loading = [engine for engine in engines if engine.state is EngineState.STARTING]
    if loading and not outage.failed:
        return Availability(
            ModelStanding.STARTING, _why(loading, ""), outage.since, "wait"
        )
    late = outage.since is not None and now - outage.since >= model.down_after_seconds
    why = _why(engines, waiting)
    if late and outage.since is not None:
        found = f"no ready engine for {now - outage.since:.0f} s: {why}"
        then = model.when_down
        return Availability(
            ModelStanding.DOWN, found, outage.since, then, _fallback(model)
        )
    standing = (
        ModelStanding.STARTING if outage.failed or loading else ModelStanding.WAITING
    )
    return Availability(standing, why, outage.since, "wait")


def _fallback(model: ModelSpec) -> str:
    return model.fallback if model.when_down == "fallback" else ""


def _engines(model: ModelSpec, snapshot: Snapshot) -> list[EngineReport]:
    """Its engines on live hosts that are to stay there."""
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


def _sleeps(model: ModelSpec, snapshot: Snapshot, backlog: int) -> bool:
    wishes = (wish.spec.model for wish in snapshot.wishes.values())
    return not model.min_engines and not backlog and model.name not in set(wishes)


def _guessed(engines: list[EngineReport]) -> Outage:
    """The outage as the engines' own times show it."""
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
