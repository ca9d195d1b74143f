"""How available each model is: found at each look of control, and published.

The rule is in ``policy.availability``. Clients and workers read what is published here;
people are told when a model is down, and when it is back.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict

from modelserver.policy.availability import (
    Availability,
    ModelStanding,
    Outage,
    availability,
    from_json,
    observe,
    to_json,
)
from modelserver.policy.snapshot import Snapshot
from modelserver.policy.troubles import Trouble, TroubleKind
from modelserver.settings import Settings
from modelserver.store import Store
from modelserver.store.fleet.alerts import open_alerts
from modelserver.store.fleet.availability import publish, read_outages, write_outages
from modelserver.store.server.versions import recall
from modelserver.values import split_engine_id

#: Periods of control without a look after which what is published is forgotten.
PUBLISHED_LOOKS = 5
#: What is published is kept at least this long, in seconds.
PUBLISHED_SECONDS = 15.0


def update_availability(
    store: Store,
    settings: Settings,
    snapshot: Snapshot,
    waiting: Mapping[str, str],
    now: float,
) -> tuple[Trouble, ...]:
    """Publish how available each model is; returns those of which people are told.

    ``waiting`` is why engines have no place, by engine. Call it under control's lock.
    """
    before: Mapping[str, Outage] = recall(
        store, "memory of outages", read_outages(store), _read, {}
    )
    outages: dict[str, Outage] = {}
    found: dict[str, Availability] = {}
    for spec in snapshot.specs:
        backlog = snapshot.queues.get(spec.name, 0)
        old = before.get(spec.name, Outage())
        outages[spec.name] = observe(old, spec, snapshot, backlog, now)
        why = _waiting_for(spec.name, waiting)
        outage = outages[spec.name]
        found[spec.name] = availability(spec, snapshot, now, outage, why)
    if outages != before:
        write_outages(store, to_json(outages))
    seconds = max(
        PUBLISHED_SECONDS, PUBLISHED_LOOKS * settings.fleet.rules.steer_seconds
    )
    publish(store, {name: asdict(each) for name, each in found.items()}, seconds)
    open_now = open_alerts(store)
    told = {each.about for each in open_now if each.kind == TroubleKind.DOWN}
    return tuple(_find_down(found, outages, told))


def _read(text: str) -> Mapping[str, Outage]:
    return from_json(json.loads(text))


def _waiting_for(model: str, waiting: Mapping[str, str]) -> str:
    reasons = (
        f"{engine} waits: {reason}"
        for engine, reason in sorted(waiting.items())
        if split_engine_id(engine)[0] == model
    )
    return "; ".join(reasons)


def _find_down(
    found: Mapping[str, Availability],
    outages: Mapping[str, Outage],
    told: Collection[str],
) -> Iterator[Trouble]:
    """The models that are down; those that were ``told`` are so until they answer."""
    for model, each in found.items():
        is_told = model in told and outages[model].since is not None
        if each.standing is ModelStanding.DOWN or is_told:
            then = _CONSEQUENCES[each.then].format(fallback=each.fallback)
            text = f"{model} is down: {each.reason}; {then}"
            yield Trouble(TroubleKind.DOWN, model, text)


_CONSEQUENCES = {
    "wait": "its requests wait",
    "fail": "its requests fail",
    "fallback": "its requests go to {fallback}",
}
