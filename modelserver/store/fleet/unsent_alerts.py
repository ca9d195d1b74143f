"""Alerts that a hook of the fleet did not take, until it does."""

import json
from dataclasses import asdict, dataclass

from modelserver.decoding import decode
from modelserver.store.fleet.alerts import AlertRecord
from modelserver.store.server.state import Store
from modelserver.store.server.versions import read_each


@dataclass(frozen=True, slots=True)
class UnsentAlert:
    """An alert for one hook. Times are seconds of the store's clock."""

    #: "command" or "webhook".
    hook: str
    alert: AlertRecord
    #: How often the hook was tried and has not taken it.
    tries: int = 0
    #: When it is tried again.
    due: float = 0.0
    #: How many of the same trouble were put before it.
    place: int = 0


def keep_unsent(store: Store, key: str, unsent: UnsentAlert) -> None:
    """Keep one under its key, in place of what is there."""
    store.client.hset(store.keys.unsent_alerts, key, json.dumps(asdict(unsent)))


def drop_unsent(store: Store, key: str) -> None:
    """It was taken, or nobody waits for it any more."""
    store.client.hdel(store.keys.unsent_alerts, key)


def read_unsent(store: Store) -> dict[str, UnsentAlert]:
    """All that are kept, by key."""
    values = store.run("HGETALL", store.keys.unsent_alerts)
    return read_each(store, "unsent alert", values, _read)


def _read(text: str) -> UnsentAlert:
    return decode(UnsentAlert, json.loads(text))
