"""The fleet file's own hooks: a command and a webhook that get each alert.

Control goes on while one runs: it has a thread of its own and a time limit. What a hook
did not take is given to it again, later and later: what began for a day, what ended
until it is taken. It comes in order: no end of a trouble is told before its beginning
was taken or given up.
"""

import json
import logging
import subprocess
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import PurePath

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
#: Where so many wait, only ends are added: of more, nobody would read each.
UNSENT_KEPT = 200
#: What the call of a hook that does not take an alert ends with.
FAILURES = (OSError, ConfigurationError)

#: What waits for one hook about one trouble, by its key, in the order of telling.
_Line = list[tuple[str, UnsentAlert]]


def call_hooks(
    settings: Settings, alert: AlertRecord, store: Store | None = None
) -> None:
    """Give the alert to each hook of the fleet. Does not wait for them.

    With a store each is noted there first: where this process is killed meanwhile,
    another one calls the hook again. Without one each hook is called once.
    """
    for hook in _configured(settings.fleet.alerts):
        key, unsent = "", UnsentAlert(hook, alert)
        first: UnsentAlert | None = unsent
        if store is not None:
            key = uuid.uuid4().hex
            with suppress(redis.RedisError, StoreUnreachableError):
                first = _noted(store, settings, key, unsent)
        if first is not None:
            _start(settings, key, first)


def _noted(
    store: Store, settings: Settings, key: str, unsent: UnsentAlert
) -> UnsentAlert | None:
    """The first try, noted as one that failed; None where others come before it."""
    kept = read_unsent(store)
    line = _lines(kept).get(_trouble(key, unsent), [])
    if not line:
        return _as_tried(store, settings, key, unsent, kept)
    first_key, first = line[0]
    last_key, last = line[-1]
    if len(line) > 1 and last.alert.event == unsent.alert.event:
        # Nobody has heard the one before, and this one says it as well.
        keep_unsent(store, last_key, replace(last, alert=unsent.alert))
    elif _has_room(kept, unsent):
        at, place = unsent.alert.at, last.place + 1
        keep_unsent(store, key, replace(unsent, due=at, place=place))
    if first.tries > 1:
        # Not in the midst of its first try; perhaps the hook is back.
        keep_unsent(store, first_key, replace(first, due=unsent.alert.at))
    return None


def _as_tried(
    store: Store,
    settings: Settings,
    key: str,
    unsent: UnsentAlert,
    kept: Mapping[str, UnsentAlert],
) -> UnsentAlert:
    """One that is tried first, kept as if that had failed; as it was without room."""
    if not _has_room(kept, unsent):
        return unsent
    unsent = _later(settings, unsent, store.now())
    keep_unsent(store, key, unsent)
    return unsent


def _has_room(kept: Mapping[str, UnsentAlert], unsent: UnsentAlert) -> bool:
    """Whether one more is kept. A trouble that lasts is told again, an end is not."""
    return unsent.alert.event == "ended" or len(kept) < UNSENT_KEPT


def _lines(
    kept: Mapping[str, UnsentAlert],
) -> dict[tuple[str, str, str], _Line]:
    """What waits, by hook and trouble, each in the order of telling."""
    lines: defaultdict[tuple[str, str, str], _Line] = defaultdict(list)
    # By place first: the server's clock may have been set back in between.
    for key, each in sorted(kept.items(), key=lambda e: (e[1].place, e[1].alert.at)):
        lines[_trouble(key, each)].append((key, each))
    return lines


def _trouble(key: str, unsent: UnsentAlert) -> tuple[str, str, str]:
    """What is told in order. An alert of no kind has no end, and is one by itself."""
    alert = unsent.alert
    return unsent.hook, alert.about if alert.kind else key, alert.kind


def call_again(store: Store, settings: Settings, now: float) -> None:
    """Give hooks what they did not take, as far as it is due. Does not wait."""
    configured = _configured(settings.fleet.alerts)
    kept = read_unsent(store)
    for key, unsent in list(kept.items()):
        if unsent.hook not in configured or _is_given_up(unsent, now):
            drop_unsent(store, key)
            del kept[key]
    firsts = [line[0] for line in _lines(kept).values()]
    due = [(key, unsent) for key, unsent in firsts if _is_due(unsent, now)]
    for key, unsent in sorted(due, key=lambda e: e[1].alert.at)[:AGAIN_AT_ONCE]:
        again = _later(settings, unsent, now)
        # First: a hook that takes long is not called by the next look as well.
        keep_unsent(store, key, again)
        _start(settings, key, again)


def _is_given_up(unsent: UnsentAlert, now: float) -> bool:
    """Whether it is too old; an end never is, or people would be paged for ever."""
    return unsent.alert.event == "raised" and unsent.alert.at < now - OPEN_SECONDS


def _is_due(unsent: UnsentAlert, now: float) -> bool:
    """Whether it is tried now, also where the server's clock was set back."""
    return not now < unsent.due <= now + AGAIN_MOST_SECONDS


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
        problem = str(error)
    if problem or unsent.tries:
        _note(settings, key, unsent, problem)


def _note(settings: Settings, key: str, unsent: UnsentAlert, problem: str) -> None:
    """Keep an alert that was not taken, drop one that was; log once in a while.

    Without a key it is not kept.
    """
    told, again = AlertRecord("hook", "failed", 0.0, "hook"), "tried again"
    try:
        store = connect(settings)
        try:
            if not problem:
                drop_unsent(store, key)
                return
            if key and not unsent.tries:
                kept = read_unsent(store)
                unsent = _as_tried(store, settings, key, unsent, kept)
            if not key:
                again = "not tried again, as Redis could not be used"
            elif not unsent.tries:
                again = f"not tried again, as {UNSENT_KEPT} alerts wait for hooks"
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
    """Run the program. Raises OSError or ConfigurationError where it does not take it.

    Its arguments may hold a secret, such as a URL, so only its name is told.
    """
    program = f"alerts.command ({PurePath(section.command[0]).name})"
    try:
        # No pipe but for the alert: a program that it leaves behind would hold it open.
        subprocess.run(
            section.command,
            input=body,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=section.hook_seconds,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        seconds = f"{section.hook_seconds:g} s"
        raise TimeoutError(f"{program} took longer than {seconds}") from error
    except subprocess.CalledProcessError as error:
        code = error.returncode
        ended = f"by signal {-code}" if code < 0 else f"with exit status {code}"
        raise ConfigurationError(
            f"{program} ended {ended}; run it by hand with an alert on its standard "
            "input"
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"{program} cannot be run: {error.strerror}; correct it in [alerts], or "
            "install it where control runs"
        ) from error


_CALLS: Mapping[str, Callable[[AlertsSection, bytes], None]] = {
    "command": _run_command,
    "webhook": post,
}
