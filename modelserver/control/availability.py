"""Which models are down: found at each look of control, told to all who ask for them.

The rule is in ``policy.availability``. Clients and workers read what is published here;
people hear of a model that goes down, and of its return, by an alert.
"""

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
from modelserver.store.alerts import open_alerts
from modelserver.store.availability import publish, read_outages, write_outages
from modelserver.values import split_engine_id

#: What is published holds for so many looks of control, and at least so long.
LOOKS, LEAST_SECONDS = 5, 15.0
#: The kind of alert that stands as long as a model is down.
DOWN = "down"


def follow_outages(
    store: Store,
    settings: Settings,
    snapshot: Snapshot,
    waiting: Mapping[str, str],
    now: float,
) -> dict[str, Availability]:
    """Publish how each model stands, and tell people what changed.

    ``waiting`` is why engines have no place, by engine. To be called under the lock of
    control.
    """
    before = from_json(read_outages(store))
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
    seconds = max(LEAST_SECONDS, LOOKS * settings.fleet.rules.steer_seconds)
    publish(store, {name: asdict(each) for name, each in found.items()}, seconds)
    _tell(store, settings, found, outages, now)
    return found


def _waiting_for(model: str, waiting: Mapping[str, str]) -> str:
    reasons = (
        f"{engine} waits: {reason}"
        for engine, reason in sorted(waiting.items())
        if split_engine_id(engine)[0] == model
    )
    return "; ".join(reasons)


def _tell(
    store: Store,
    settings: Settings,
    found: Mapping[str, Availability],
    outages: Mapping[str, Outage],
    now: float,
) -> None:
    told = {each.about for each in open_alerts(store) if each.kind == DOWN}
    for model, each in found.items():
        if each.standing is ModelStanding.DOWN:
            text = f"{model} is down: {each.reason}; {_CONSEQUENCES[each.then]}"
            text = text.format(fallback=each.fallback)
            raise_alert(store, settings, model, text, now, kind=DOWN)
        elif model in told and outages[model].since is None:
            text = f"{model} is back: {each.reason}"
            end_alert(store, settings, model, text, now, kind=DOWN)
    for model in told - found.keys():
        text = f"{model} is no longer part of the fleet"
        end_alert(store, settings, model, text, now, kind=DOWN)


_CONSEQUENCES = {
    "wait": "its requests wait",
    "fail": "its requests fail",
    "fallback": "its requests go to {fallback}",
}
