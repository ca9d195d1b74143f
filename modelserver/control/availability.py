"""How available each model is: found at each look of control, and published.

The rule is in ``policy.availability``. Clients and workers read what is published here;
people are alerted when a model is down, and when it is back.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict

from modelserver.control.alerts import end_alert, raise_alert
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
#: The kind of alert that stands as long as a model is down.
DOWN_ALERT = "down"


def update_availability(
    store: Store,
    settings: Settings,
    snapshot: Snapshot,
    waiting: Mapping[str, str],
    now: float,
) -> None:
    """Publish how available each model is, and alert people to what changed.

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
    _alert(store, settings, found, outages, now)


def _read(text: str) -> Mapping[str, Outage]:
    return from_json(json.loads(text))


def _waiting_for(model: str, waiting: Mapping[str, str]) -> str:
    reasons = (
        f"{engine} waits: {reason}"
        for engine, reason in sorted(waiting.items())
        if split_engine_id(engine)[0] == model
    )
    return "; ".join(reasons)


def _alert(
    store: Store,
    settings: Settings,
    found: Mapping[str, Availability],
    outages: Mapping[str, Outage],
    now: float,
) -> None:
    told = {each.about for each in open_alerts(store) if each.kind == DOWN_ALERT}
    for model, each in found.items():
        if each.standing is ModelStanding.DOWN:
            text = f"{model} is down: {each.reason}; {_CONSEQUENCES[each.then]}"
            text = text.format(fallback=each.fallback)
            raise_alert(store, settings, model, text, now, kind=DOWN_ALERT)
        elif model in told and outages[model].since is None:
            text = f"{model} is back: {each.reason}"
            end_alert(store, settings, model, text, now, kind=DOWN_ALERT)
    for model in told - found.keys():
        text = f"{model} is no longer part of the fleet"
        end_alert(store, settings, model, text, now, kind=DOWN_ALERT)


_CONSEQUENCES = {
    "wait": "its requests wait",
    "fail": "its requests fail",
    "fallback": "its requests go to {fallback}",
}
