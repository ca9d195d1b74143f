"""The fleet file's own hooks: a command and a webhook that get each alert.

Control goes on while one runs: it has a thread of its own and a time limit. What a hook
did not take is given to it again, later and later, for a day. It comes in order: no end
of a trouble is told before its beginning was taken.
"""

import json
import logging
import subprocess
import threading
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace

import redis

from modelserver.control.webhook import post
from modelserver.errors import ConfigurationError, StoreUnreachableError
from modelserver.fleet.sections import AlertsSection
from modelserver.settings import Settings
from modelserver.store import Store, connect
from modelserver.store.fleet.alerts import OPEN_SECONDS, AlertRecord, count, is_new
from modelserver.store.fleet.unsent_alerts import (
    UnsentAlert,
    drop_unsent,
    keep_unsent,
    read_unsent,
)

log = logging.getLogger(__name__)

#: A hook that goes on failing is logged again after this time, in seconds.
HOOK_LOG_SECONDS = 3600.0
#: A hook that failed is tried again after so many seconds, then after twice as many,
AGAIN_SECONDS = 15.0
#: ... up to so many.
AGAIN_MOST_SECONDS = 3600.0
#: Alerts that are given to hooks again at one look: each takes a thread, and a program.
AGAIN_AT_ONCE = 10
#: What the call of a hook that does not take an alert ends with. A program that does
#: not exist and a host that does not answer are OSErrors, what is no URL a ValueError.
FAILURES = (
    *(OSError, ValueError, OverflowError),
    *(subprocess.SubprocessError, ConfigurationError),
)


def call_hooks(
    settings: Settings, alert: AlertRecord, store: Store | None = None
) -> None:
    """Give the alert to each hook of the fleet. Does not wait for them.

    With a store each is noted there first: where this process is killed meanwhile,
    another one calls the hook again.
    """
    for hook in _configured(settings.fleet.alerts):
        key, unsent = uuid.uuid4().hex, UnsentAlert(hook, alert)
        first: UnsentAlert | None = unsent
        if store is not None:
            with suppress(redis.RedisError, StoreUnreachableError):
                first = _noted(store, settings, key, unsent)
        if first is not None:
            _start(settings, key, first)


def _noted(
    store: Store, settings: Settings, key: str, unsent: UnsentAlert
) -> UnsentAlert | None:
    """The first try, noted as one that failed; None where others come before it."""
    before, at = _earlier(read_unsent(store), unsent), unsent.alert.at
    if not before:
        unsent = _later(settings, unsent, store.now())
        keep_unsent(store, key, unsent)
        return unsent
    keep_unsent(store, key, replace(unsent, due=at))
    next_key, next_one = before[0]
    if next_one.tries > 1:
        # Not in the midst of its first try; perhaps the hook is back.
        keep_unsent(store, next_key, replace(next_one, due=at))
    return None


def _earlier(
    kept: Mapping[str, UnsentAlert], unsent: UnsentAlert
) -> list[tuple[str, UnsentAlert]]:
    """What a hook has not taken of the same trouble; those of no kind have no end."""
    found = [
        (key, each)
        for key, each in kept.items()
        if _trouble(each) == _trouble(unsent) and unsent.alert.kind
    ]
    # What was raised and ended at once was raised first.
    return sorted(found, key=lambda e: (e[1].alert.at, e[1].alert.event == "ended"))


def _trouble(unsent: UnsentAlert) -> tuple[str, str, str]:
    return unsent.hook, unsent.alert.about, unsent.alert.kind


def call_again(store: Store, settings: Settings, now: float) -> None:
    """Give hooks what they did not take, as far as it is due. Does not wait."""
    configured = _configured(settings.fleet.alerts)
    due = []
    kept = read_unsent(store)
    for key, unsent in kept.items():
        is_old = unsent.alert.at < now - OPEN_SECONDS
        if is_old or unsent.hook not in configured:
            drop_unsent(store, key)
        elif unsent.due <= now and _is_next(kept, key, unsent):
            due.append((key, _later(settings, unsent, now)))
    for key, again in sorted(due, key=lambda each: each[1].alert.at)[:AGAIN_AT_ONCE]:
        # First: a hook that takes long is not called by the next look as well.
        keep_unsent(store, key, again)
        _start(settings, key, again)


def _is_next(kept: Mapping[str, UnsentAlert], key: str, unsent: UnsentAlert) -> bool:
    """Whether a hook has taken all that came before of the same trouble."""
    before = _earlier(kept, unsent)
    return not before or before[0][0] == key


def _configured(section: AlertsSection) -> list[str]:
    return ["command"] * bool(section.command) + ["webhook"] * bool(section.webhook)


def _later(settings: Settings, unsent: UnsentAlert, now: float) -> UnsentAlert:
    first = max(AGAIN_SECONDS, 2 * settings.fleet.alerts.hook_seconds)
    pause = min(AGAIN_MOST_SECONDS, first * 2.0 ** min(unsent.tries, 10))
    return replace(unsent, tries=unsent.tries + 1, due=now + pause)


def _start(settings: Settings, key: str, unsent: UnsentAlert) -> None:
    threading.Thread(
        target=_try, args=(settings, key, unsent), name="alert", daemon=True
    ).start()


def _try(settings: Settings, key: str, unsent: UnsentAlert) -> None:
    problem = ""
    try:
        body = json.dumps(asdict(unsent.alert)).encode()
        _CALLS[unsent.hook](settings.fleet.alerts, body)
    except FAILURES as error:
        problem = str(error) or repr(error)
    if problem or unsent.tries:
        _note(settings, key, unsent, problem)


def _note(settings: Settings, key: str, unsent: UnsentAlert, problem: str) -> None:
    """Keep an alert that was not taken, drop one that was; log once in a while."""
    told, again = AlertRecord("hook", "failed", 0.0, "hook"), "tried again"
    try:
        store = connect(settings)
        try:
            if not problem:
                drop_unsent(store, key)
                return
            if not unsent.tries:
                keep_unsent(store, key, _later(settings, unsent, store.now()))
            count(store, "hook_failed")
            if not is_new(store, told, HOOK_LOG_SECONDS):
                return
        finally:
            store.client.close()
    except (redis.RedisError, StoreUnreachableError) as error:
        log.debug("what came of a hook was not noted: %s", error)
        if not unsent.tries:
            again = "not tried again, as Redis cannot be used"
    if problem:
        log.error("the hook of [alerts] failed, and is %s: %s", again, problem)


def _run_command(section: AlertsSection, body: bytes) -> None:
    subprocess.run(
        section.command,
        input=body,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=section.hook_seconds,
        check=True,
    )


_CALLS: Mapping[str, Callable[[AlertsSection, bytes], None]] = {
    "command": _run_command,
    "webhook": post,
}
