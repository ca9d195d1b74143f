"""Hooks that did not take an alert, or were not asked to the end."""

import sys
from pathlib import Path

from modelserver.control.alerts import raise_alert
from modelserver.control.hooks import AGAIN_AT_ONCE, call_again
from modelserver.fleet.sections import AlertsSection
from modelserver.store import Store
from modelserver.store.fleet.alerts import OPEN_SECONDS, AlertRecord
from modelserver.store.fleet.unsent_alerts import UnsentAlert, keep_unsent, read_unsent
from tests.support.alerts import alert_settings
from tests.support.processes import ValkeyProcess, eventually


def test_a_hook_is_called_again_where_its_caller_is_killed_meanwhile(
    valkey: ValkeyProcess, tmp_path: Path, store: Store
):
    sleeps = (sys.executable, "-c", "import time; time.sleep(2)")
    settings = alert_settings(valkey, tmp_path, AlertsSection(command=sleeps))
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
    eventually(lambda: not read_unsent(store))


def test_what_a_hook_did_not_take_is_given_up_with_the_hook_or_after_a_day(
    valkey: ValkeyProcess, tmp_path: Path, store: Store
):
    now = store.now()
    for key, since in (("old", now - OPEN_SECONDS - 1), ("new", now)):
        alert = AlertRecord("m", "m is down", since)
        keep_unsent(store, key, UnsentAlert("webhook", alert, due=now + 60))
    section = AlertsSection(webhook="http://127.0.0.1:9/")
    call_again(store, alert_settings(valkey, tmp_path, section), now)
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
    # Nobody listens there.
    section = AlertsSection(webhook="http://127.0.0.1:9/")
    call_again(store, alert_settings(valkey, tmp_path, section), now)
    called = [key for key, each in read_unsent(store).items() if each.due > now]
    assert sorted(called) == [f"{number:02}" for number in range(AGAIN_AT_ONCE)]
