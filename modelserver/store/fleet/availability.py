"""How the models stand: written by control, read by clients and workers."""

import json
from collections.abc import Mapping

from modelserver.store.server.state import Store
from modelserver.store.server.versions import recall
from modelserver.values import Json


def publish(store: Store, models: Mapping[str, Json], seconds: float) -> None:
    """Say how each model stands; forgotten after so many seconds without news.

    So a control that stopped looking keeps no request from a model that is back.
    """
    value = json.dumps(models, separators=(",", ":"))
    store.client.set(store.keys.availability, value, px=int(seconds * 1000))


def standings(store: Store) -> dict[str, Json]:
    """How each model stood at control's last look; empty if that is long ago."""
    text = str(store.client.get(store.keys.availability) or "")
    return recall(store, "standing of the models", text, _read, {})


def _read(text: str) -> dict[str, Json]:
    return {name: dict(each) for name, each in json.loads(text).items()}


def fleet_and_standings(store: Store) -> tuple[str, str]:
    """The applied fleet and how its models stand, as JSON, in one round trip."""
    keys = [store.keys.fleet, store.keys.availability]
    fleet, models = store.client.mget(keys)
    return str(fleet or ""), str(models or "")


def read_outages(store: Store) -> str:
    """What control remembers of each model's outage, as JSON, "" for nothing."""
    return str(store.client.get(store.keys.outages) or "")


def write_outages(store: Store, outages: Mapping[str, Json]) -> None:
    """Remember each model's outage until the next look."""
    store.client.set(store.keys.outages, json.dumps(outages, separators=(",", ":")))
