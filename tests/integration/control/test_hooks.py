"""The hooks of [alerts]: a command's call, and what they get that they did not take."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from modelserver.control.alerts import end_alert, raise_alert, tell_by_hooks
from modelserver.control.hooks import AGAIN_AT_ONCE, UNSENT_KEPT, call_again
from modelserver.fleet.sections import AlertsSection
from modelserver.settings import Settings
from modelserver.store import Store
from modelserver.store.fleet.alerts import (
    KIND_OPEN_SECONDS,
    OPEN_SECONDS,
    AlertRecord,
    add,
    counts,
    last_alerts,
    open_alerts,
)
from modelserver.store.fleet.unsent_alerts import UnsentAlert, keep_unsent, read_unsent
from tests.support.alerts import alert_settings
from tests.support.processes import ValkeyProcess, eventually
from tests.support.workers import PATIENCE

#: Notes in a file what it reads, a line for each alert.
HOOK = "import sys; print(sys.stdin.read(), file=open(sys.argv[1], 'a'))"
#: Nobody listens there.
NOBODY = AlertsSection(webhook="http://127.0.0.1:9/")


@pytest.fixture
def told(tmp_path: Path) -> Path:
    return tmp_path / "told"


@pytest.fixture
def telling(valkey: ValkeyProcess, tmp_path: Path, told: Path) -> Settings:
    """Settings with a command that notes its alerts in ``told``."""
    section = AlertsSection(command=(sys.executable, "-c", HOOK, str(told)))
    return alert_settings(valkey, tmp_path, section)


def alerts_in(told: Path) -> list[dict[str, object]]:
    lines = told.read_text().splitlines() if told.exists() else []
    return [json.loads(line) for line in lines]


def call_until_all_is_taken(store: Store, settings: Settings, now: float) -> None:
    """One look for each that waits of a trouble."""
    while waiting := len(read_unsent(store)):
        call_again(store, settings, now)
        eventually(lambda waiting=waiting: len(read_unsent(store)) < waiting)


def test_a_command_gets_the_alert_on_its_standard_input(
    store: Store, telling: Settings, told: Path
):
    raise_alert(store, telling, "m-0", "it is slow", 100.0)
    eventually(lambda: alerts_in(told))
    assert alerts_in(told) == [
        {
            "about": "m-0",
            "text": "it is slow",
            "at": 100.0,
            "kind": "",
            "event": "raised",
            "since": 100.0,
        }
    ]


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """Who reads it waits until somebody writes into it."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def test_a_hook_that_takes_its_time_holds_nobody_up(
    valkey: ValkeyProcess, tmp_path: Path, store: Store, pipe: Path
):
    section = AlertsSection(command=("cat", str(pipe)), hook_seconds=PATIENCE)
    settings = alert_settings(valkey, tmp_path, section)
    raise_alert(store, settings, "m-0", "it is slow", 100.0)
    assert "hook_failed" not in counts(store)
    pipe.write_text("go on")
    eventually(lambda: not read_unsent(store))


def test_a_hook_that_hangs_is_ended(
    valkey: ValkeyProcess,
    tmp_path: Path,
    store: Store,
    caplog: pytest.LogCaptureFixture,
):
    sleeps = (sys.executable, "-c", "import time; time.sleep(600)")
    section = AlertsSection(command=sleeps, hook_seconds=2.0)
    settings = alert_settings(valkey, tmp_path, section)
    raise_alert(store, settings, "m-0", "it is slow", 100.0)
    eventually(lambda: "took longer than 2 s" in caplog.text)


def test_a_hook_that_leaves_a_program_behind_has_taken_the_alert(
    valkey: ValkeyProcess, tmp_path: Path, store: Store
):
    leaves = ("sh", "-c", "sleep 30 & exit 0")
    section = AlertsSection(command=leaves, hook_seconds=2.0)
    settings = alert_settings(valkey, tmp_path, section)
    raise_alert(store, settings, "m-0", "it is slow", store.now())
    eventually(lambda: not read_unsent(store))
    assert "hook_failed" not in counts(store)


def test_a_hook_that_fails_is_logged_once_and_counted(
    valkey: ValkeyProcess,
    tmp_path: Path,
    store: Store,
    caplog: pytest.LogCaptureFixture,
):
    section = AlertsSection(command=(str(tmp_path / "missing"),))
    settings = alert_settings(valkey, tmp_path, section)
    for engine in ("m-0", "m-1", "m-2"):
        raise_alert(store, settings, engine, "it is slow", 100.0)
    eventually(lambda: counts(store).get("hook_failed") == 3)
    eventually(lambda: caplog.text.count("the hook of [alerts] failed") == 1)
    assert "alerts.command (missing) cannot be run: No such file" in caplog.text
    assert len(last_alerts(store, 10)) == 3


@pytest.mark.parametrize(
    ("script", "said"),
    [("exit 22", "with exit status 22"), ("kill -9 $$", "by signal 9")],
)
def test_what_is_said_of_a_command_shows_none_of_its_arguments(
    valkey: ValkeyProcess,
    tmp_path: Path,
    store: Store,
    caplog: pytest.LogCaptureFixture,
    script: str,
    said: str,
):
    command = ("/bin/sh", "-c", script, "https://hooks.example.org/secret")
    settings = alert_settings(valkey, tmp_path, AlertsSection(command=command))
    raise_alert(store, settings, "m-0", "it is slow", 100.0)
    eventually(lambda: f"alerts.command (sh) ended {said}" in caplog.text)
    assert "secret" not in caplog.text


def test_a_hook_is_called_again_where_its_caller_is_killed_meanwhile(
    valkey: ValkeyProcess, tmp_path: Path, store: Store, pipe: Path
):
    section = AlertsSection(command=("cat", str(pipe)), hook_seconds=PATIENCE)
    settings = alert_settings(valkey, tmp_path, section)
    now = store.now()
    raise_alert(store, settings, "m-0", "it is slow", now)
    # What a process finds that comes after one that was killed here.
    [unsent] = read_unsent(store).values()
    assert (unsent.hook, unsent.alert.text, unsent.tries) == (
        "command",
        "it is slow",
        1,
    )
    assert unsent.due > now + settings.fleet.alerts.hook_seconds
    pipe.write_text("go on")
    eventually(lambda: not read_unsent(store))


def test_what_a_hook_did_not_take_is_given_up_with_the_hook_or_after_a_day(
    valkey: ValkeyProcess, tmp_path: Path, store: Store
):
    now = store.now()
    for key, since in (("old", now - OPEN_SECONDS - 1), ("new", now)):
        alert = AlertRecord("m", "m is down", since)
        keep_unsent(store, key, UnsentAlert("webhook", alert, due=now + 60))
    call_again(store, alert_settings(valkey, tmp_path, NOBODY), now)
    assert list(read_unsent(store)) == ["new"]
    call_again(store, alert_settings(valkey, tmp_path, AlertsSection()), now)
    assert not read_unsent(store)


def test_after_a_long_outage_hooks_get_the_oldest_first_and_few_at_once(
    valkey: ValkeyProcess, tmp_path: Path, store: Store
):
    now = store.now()
    for number in reversed(range(2 * AGAIN_AT_ONCE)):
        alert = AlertRecord("m", "m is down", now - 60 + number)
        keep_unsent(store, f"{number:02}", UnsentAlert("webhook", alert, tries=1))
    call_again(store, alert_settings(valkey, tmp_path, NOBODY), now)
    called = [key for key, each in read_unsent(store).items() if each.due > now]
    assert sorted(called) == [f"{number:02}" for number in range(AGAIN_AT_ONCE)]


def test_an_end_has_the_beginning_told_at_once_and_first(
    store: Store, telling: Settings, told: Path
):
    now = store.now()
    alert = AlertRecord("m", "m is down", now - 60, "down")
    add(store, alert)
    # It was down for long, and would not be tried for an hour.
    keep_unsent(store, "k", UnsentAlert("command", alert, tries=9, due=now + 3000))
    end_alert(store, telling, "m", "m is back", now, "down")
    call_until_all_is_taken(store, telling, now)
    assert [each["event"] for each in alerts_in(told)] == ["raised", "ended"]


def test_an_end_comes_after_its_beginning_where_the_clock_was_set_back(
    store: Store, telling: Settings, told: Path
):
    now = store.now()
    # By a day: the beginning is from tomorrow, and so is when it is tried again.
    alert = AlertRecord("m", "m is down", now + OPEN_SECONDS, "down")
    add(store, alert)
    due = now + OPEN_SECONDS + 60
    keep_unsent(store, "k", UnsentAlert("command", alert, tries=1, due=due))
    end_alert(store, telling, "m", "m is back", now, "down")
    call_until_all_is_taken(store, telling, now)
    assert [each["event"] for each in alerts_in(told)] == ["raised", "ended"]


def fill(store: Store, now: float) -> None:
    """As after a night in which a hook was down."""
    for number in range(UNSENT_KEPT):
        alert = AlertRecord(f"engine {number}", "it is slow", now - 60)
        keep_unsent(store, f"{number}", UnsentAlert("webhook", alert, 9, now + 3000))


def kept_of(store: Store, about: str) -> list[UnsentAlert]:
    found = [each for each in read_unsent(store).values() if each.alert.about == about]
    return sorted(found, key=lambda each: each.place)


def test_an_end_is_kept_however_many_wait(
    valkey: ValkeyProcess, tmp_path: Path, store: Store
):
    settings = alert_settings(valkey, tmp_path, NOBODY)
    now = store.now()
    fill(store, now)
    # Its beginning was told before the hook went down.
    add(store, AlertRecord("m", "m is down", now - 3600, "down"))
    end_alert(store, settings, "m", "m is back", now, "down")
    assert [each.alert.event for each in kept_of(store, "m")] == ["ended"]
    # That ends come and go adds no more of them.
    for _ in range(5):
        raise_alert(store, settings, "m", "m is down", now, "down")
        end_alert(store, settings, "m", "m is back", now, "down")
    assert len(kept_of(store, "m")) <= 2
    assert {each.alert.event for each in kept_of(store, "m")} == {"ended"}


def test_an_end_is_told_where_its_control_is_killed_before_it_stands_no_more(
    valkey: ValkeyProcess, tmp_path: Path, store: Store
):
    settings = alert_settings(valkey, tmp_path, NOBODY)
    now = store.now()
    add(store, AlertRecord("m", "m is down", now - 60, "down"))
    # The command that takes it from those that stand fails, as good as never said.
    store.client.acl_setuser("default", enabled=True, commands=["-hdel"])
    try:
        with pytest.raises(redis.ResponseError):
            end_alert(store, settings, "m", "m is back", now, "down")
    finally:
        store.client.acl_setuser("default", enabled=True, commands=["+hdel"])
    assert [each.alert.event for each in kept_of(store, "m")] == ["ended"]
    assert end_alert(store, settings, "m", "m is back", now, "down")


def test_of_an_outage_of_redis_its_end_alone_is_told_again(
    valkey: ValkeyProcess,
    tmp_path: Path,
    store: Store,
    caplog: pytest.LogCaptureFixture,
):
    """Nobody could take back a beginning that comes after it."""
    settings = alert_settings(valkey, tmp_path, NOBODY)
    alert = AlertRecord("a", "host a cannot use Redis", store.now(), "redis")
    tell_by_hooks(settings, alert)
    eventually(lambda: "not tried again, as Redis could not be used" in caplog.text)
    assert read_unsent(store) == {}
    tell_by_hooks(settings, replace(alert, event="ended"), store)
    assert [each.alert.event for each in kept_of(store, "a")] == ["ended"]


def test_an_end_is_told_however_long_the_hook_was_down(
    store: Store, telling: Settings, told: Path
):
    now = store.now()
    ended = AlertRecord("m", "m is back", now - 3 * OPEN_SECONDS, "down", "ended")
    keep_unsent(store, "k", UnsentAlert("command", ended, tries=30, due=now))
    call_until_all_is_taken(store, telling, now)
    assert [each["event"] for each in alerts_in(told)] == ["ended"]


def test_what_is_not_kept_is_not_said_to_be_tried_again(
    valkey: ValkeyProcess,
    tmp_path: Path,
    store: Store,
    caplog: pytest.LogCaptureFixture,
):
    now = store.now()
    fill(store, now)
    settings = alert_settings(valkey, tmp_path, NOBODY)
    raise_alert(store, settings, "m", "m is down", now, "down")
    eventually(lambda: "the hook of [alerts] failed" in caplog.text)
    assert "not tried again, as 200 alerts wait for hooks" in caplog.text
    assert kept_of(store, "m") == []


def test_a_trouble_that_is_told_hourly_does_not_take_the_room_of_others(
    valkey: ValkeyProcess, tmp_path: Path, store: Store
):
    settings = alert_settings(valkey, tmp_path, NOBODY)
    now = store.now()
    first = AlertRecord("m", "1 engine is FATAL", now, "fatal")
    keep_unsent(store, "k", UnsentAlert("webhook", first, tries=9, due=now + 3000))
    for engines in range(2, 26):
        text, at = f"{engines} engines are FATAL", now + engines
        raise_alert(store, settings, "m", text, at, "fatal", again=True)
    texts = [each.alert.text for each in kept_of(store, "m")]
    assert texts == ["1 engine is FATAL", "25 engines are FATAL"]


def test_an_alert_that_stands_for_days_is_open_and_its_end_is_told(
    store: Store, telling: Settings, told: Path
):
    now = store.now()
    add(store, AlertRecord("m", "m is down", now - 3 * OPEN_SECONDS, "down"))
    assert end_alert(store, telling, "m", "m is back", now, "down")
    eventually(lambda: [each["event"] for each in alerts_in(told)] == ["ended"])
    # What nobody ends is over after a day.
    slow = AlertRecord("m-0", "it is slow", now - OPEN_SECONDS - 1)
    add(store, slow)
    add(store, AlertRecord("m", "of old", now - KIND_OPEN_SECONDS - 1, "older"))
    add(store, replace(slow, about="m-1", at=now))
    assert [each.about for each in open_alerts(store)] == ["m-1"]
