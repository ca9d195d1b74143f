"""Alerts people: by a log line, the stream of alerts, and the fleet file's own hook.

Control goes on while the hook runs: it has a thread of its own and a time limit.
"""

import json
import logging
import subprocess
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any
from urllib.parse import urlsplit

import redis

from modelserver.errors import (
    ConfigurationError,
    ModelserverError,
    StoreUnreachableError,
)
from modelserver.fleet.sections import AlertsSection
from modelserver.settings import Settings, secret
from modelserver.store import Store, connect
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

#: A hook that goes on failing is logged again after this time, in seconds.
HOOK_LOG_SECONDS = 3600.0


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
    for the fleet's hook.
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
    _call_hook(settings, alert)
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
    if not end(store, alert):
        return False
    log.warning("alert about=%s ended: %s", about, text)
    _call_hook(settings, alert)
    return True


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


def tell_without_store(settings: Settings, alert: AlertRecord) -> None:
    """Tell people by the log and the hook alone: the store cannot be used."""
    log.warning("alert about=%s %s: %s", alert.about, alert.event, alert.text)
    _call_hook(settings, alert)


def _call_hook(settings: Settings, alert: AlertRecord) -> None:
    section = settings.fleet.alerts
    calls: list[Callable[[AlertsSection, bytes], None]] = []
    calls += [_run_command] * bool(section.command)
    calls += [_post] * bool(section.webhook)
    body = json.dumps(asdict(alert)).encode()
    for call in calls:
        threading.Thread(
            target=_try, args=(call, settings, body), name="alert", daemon=True
        ).start()


def _try(
    call: Callable[[AlertsSection, bytes], None], settings: Settings, body: bytes
) -> None:
    try:
        call(settings.fleet.alerts, body)
    # A program that does not exist and a host that does not answer are OSErrors.
    except (OSError, subprocess.SubprocessError, ConfigurationError) as error:
        _note_failure(settings, str(error))


def _run_command(section: AlertsSection, body: bytes) -> None:
    subprocess.run(
        section.command,
        input=body,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=section.hook_seconds,
        check=True,
    )


def _post(section: AlertsSection, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    if section.webhook_token_env:
        key = "alerts.webhook_token_env"
        token = secret(section.webhook_token_env, key, "worker")
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(section.webhook, body, headers)
    # No proxy leads to this host itself.
    own = [urllib.request.ProxyHandler({})] if _is_loopback(section.webhook) else []
    opener = urllib.request.build_opener(_NoRedirects, *own)
    with opener.open(request, timeout=section.hook_seconds):
        pass  # Any answer below 400 will do.


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows none: the alert would be left out, and the token handed on.

    It could also lead to what only this host can reach.
    """

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        """Say where to instead."""
        raise ConfigurationError(
            f"alerts.webhook is redirected (HTTP {code}) to {newurl}, which is not "
            "followed; write the URL that takes the alerts"
        )


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _note_failure(settings: Settings, problem: str) -> None:
    """Log a hook that failed, once in a while; the alert itself is in the store."""
    try:
        store = connect(settings)
        note = AlertRecord("hook", "failed", 0.0, "hook")
        try:
            count(store, "hook_failed")
            if not is_new(store, note, HOOK_LOG_SECONDS):
                return
        finally:
            store.client.close()
    except (redis.RedisError, StoreUnreachableError) as error:
        log.debug("the failure of a hook was not counted: %s", error)
    log.error("the hook of [alerts] failed: %s; the alert is in the store", problem)
