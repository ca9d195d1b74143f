"""Alerts as they stand in the store: a stream of all, a hash of those that stand.

Numbers in a text change from one look to the next, so an alert is taken for the same as
an earlier one if it is about the same and its text differs in numbers only.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, replace
from typing import Any

from modelserver.decoding import decode
from modelserver.errors import ModelserverError
from modelserver.store.server.state import Store
from modelserver.store.server.versions import read_each

#: Alerts that the stream keeps, about.
ALERTS_KEPT = 1000
#: Seconds for which an alert that nobody ends stands after it was last raised.
OPEN_SECONDS = 86_400.0
#: The same of one with a kind, which control ends; a later version may not know it.
KIND_OPEN_SECONDS = 30 * 86_400.0
#: What is counted of alerts.
COUNTED = ("raised", "ended", "repeated", "hook_failed")

_NUMBER = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True, slots=True)
class AlertRecord:
    """One alert. Times are seconds of the store's clock."""

    #: An engine's id, the name of a model or a host, or a part of the fleet.
    about: str
    text: str
    #: When this was told.
    at: float
    #: What can end by itself; "" for what somebody has to look at.
    kind: str = ""
    #: "raised" or "ended".
    event: str = "raised"
    #: When it was first raised.
    since: float = 0.0


def is_new(store: Store, alert: AlertRecord, seconds: float) -> bool:
    """Whether no such alert was raised for so many seconds; notes that one was."""
    same = alert.kind or _NUMBER.sub("#", alert.text)
    digest = hashlib.sha256(f"{alert.about}\n{same}".encode()).hexdigest()[:16]
    lifetime = max(1, int(seconds * 1000))
    key = store.keys.alerted(digest)
    return bool(store.client.set(key, "1", nx=True, px=lifetime))


def forget_repeats(store: Store, alert: AlertRecord) -> None:
    """The next of this kind is a new one."""
    same = f"{alert.about}\n{alert.kind}".encode()
    store.client.delete(store.keys.alerted(hashlib.sha256(same).hexdigest()[:16]))


def add(store: Store, alert: AlertRecord) -> None:
    """Keep a raised alert, and count it."""
    with store.client.pipeline() as pipe:
        _add(store, pipe, alert)
        pipe.hset(store.keys.open_alerts, _field(alert), json.dumps(asdict(alert)))
        pipe.hincrby(store.keys.alert_counts, "raised", 1)
        pipe.execute()


def end(store: Store, alert: AlertRecord) -> bool:
    """Keep that an alert has ended; False if none stood."""
    if not store.client.hdel(store.keys.open_alerts, _field(alert)):
        return False
    with store.client.pipeline() as pipe:
        _add(store, pipe, alert)
        pipe.hincrby(store.keys.alert_counts, "ended", 1)
        pipe.execute()
    return True


def _add(store: Store, pipe: Any, alert: AlertRecord) -> None:
    fields = {name: str(value) for name, value in asdict(alert).items()}
    pipe.xadd(store.keys.alerts, fields, maxlen=ALERTS_KEPT, approximate=True)


def _field(alert: AlertRecord) -> str:
    return f"{alert.kind}:{alert.about}"


def open_alerts(store: Store) -> tuple[AlertRecord, ...]:
    """The alerts that stand, oldest first; forgets those that nobody has ended."""
    values = store.run("HGETALL", store.keys.open_alerts)
    if not values:
        return ()
    found = read_each(store, "alert", values, _read_open)
    now = store.now()
    old = {name for name, each in found.items() if now - each.at > _stands_for(each)}
    if old:
        store.client.hdel(store.keys.open_alerts, *old)
    stand = (each for name, each in found.items() if name not in old)
    return tuple(sorted(stand, key=lambda each: each.since))


def _stands_for(alert: AlertRecord) -> float:
    return KIND_OPEN_SECONDS if alert.kind else OPEN_SECONDS


def close_alerts(store: Store, about: str) -> tuple[AlertRecord, ...]:
    """End what stands about something, or about "all", without telling people.

    Returns what nobody else has ended meanwhile; ModelserverError if nothing stood.
    """
    found = [each for each in open_alerts(store) if about in (each.about, "all")]
    if not found:
        raise ModelserverError(
            f"there is no open alert about {about}; `modelserver alerts` lists them"
        )
    now = store.now()
    return tuple(
        each for each in found if end(store, replace(each, event="ended", at=now))
    )


def read_troubles(store: Store) -> str:
    """What control remembers of troubles, as JSON, "" for nothing."""
    return str(store.client.get(store.keys.troubles) or "")


def write_troubles(store: Store, troubles: str) -> None:
    """Remember the troubles until the next look."""
    store.client.set(store.keys.troubles, troubles)


def last_alerts(store: Store, number: int) -> tuple[AlertRecord, ...]:
    """The last alerts, raised and ended, newest last."""
    client: Any = store.client
    entries = client.xrevrange(store.keys.alerts, count=number)
    return tuple(read_each(store, "alert", dict(reversed(entries)), _read).values())


def _read_open(text: str) -> AlertRecord:
    return decode(AlertRecord, json.loads(text))


def _read(values: dict[str, str]) -> AlertRecord:
    numbers = {name: float(values.get(name, 0.0)) for name in ("at", "since")}
    return decode(AlertRecord, {**values, **numbers})


def count(store: Store, name: str) -> None:
    """Add one to a total, one of ``COUNTED``."""
    store.client.hincrby(store.keys.alert_counts, name, 1)


def counts(store: Store) -> dict[str, int]:
    """The totals."""
    values = store.client.hgetall(store.keys.alert_counts)
    return {str(key): int(value) for key, value in sorted(values.items())}
