"""Alerts people: by a log line, the stream of alerts, and the fleet file's hooks."""

import logging
from dataclasses import replace

from modelserver.control.hooks import call_hooks
from modelserver.settings import Settings
from modelserver.store import Store
from modelserver.store.fleet.alerts import (
    AlertRecord,
    add,
    count,
    end,
    forget_repeats,
    is_new,
    open_alerts,
)

log = logging.getLogger(__name__)


def raise_alert(
    store: Store,
    settings: Settings,
    about: str,
    text: str,
    now: float,
    kind: str = "",
    *,
    again: bool = False,
) -> bool:
    """Tell people; False where the like was told not long ago, unless ``again``.

    ``about`` is an engine's id, the name of a model or a host, or a part of the fleet.
    With a ``kind`` the alert stands until ``end_alert``, else for a day. Does not wait
    for the fleet's hooks.
    """
    alert = AlertRecord(about, text, now, kind, since=now)
    section = settings.fleet.alerts
    if again:
        forget_repeats(store, alert)
    if not is_new(store, alert, section.repeat_seconds):
        count(store, "repeated")
        return False
    before = (each for each in open_alerts(store) if each.about == about)
    since = (each.since for each in before if each.kind == kind)
    alert = replace(alert, since=next(since, now))
    log.warning("alert about=%s %s", about, text)
    add(store, alert)
    call_hooks(settings, alert, store)
    return True


def end_alert(
    store: Store, settings: Settings, about: str, text: str, now: float, kind: str
) -> bool:
    """Tell people that something is over; False where no such alert stood."""
    found = [e for e in open_alerts(store) if (e.about, e.kind) == (about, kind)]
    if not found:
        return False
    alert = AlertRecord(about, text, now, kind, "ended", found[0].since)
    forget_repeats(store, alert)
    # First: where this process is killed in between, it is told twice and not never.
    call_hooks(settings, alert, store)
    if not end(store, alert):
        return False
    log.warning("alert about=%s ended: %s", about, text)
    return True


def tell_by_hooks(
    settings: Settings, alert: AlertRecord, store: Store | None = None
) -> None:
    """Tell people by the log and the hooks alone, of what does not stand in the store.

    Without a store that can be used, a hook that does not take it does not get it.
    """
    log.warning("alert about=%s %s: %s", alert.about, alert.event, alert.text)
    call_hooks(settings, alert, store)
