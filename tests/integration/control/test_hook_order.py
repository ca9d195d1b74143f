"""What is told of one trouble reaches a hook in order."""

import json
import sys
from pathlib import Path

from modelserver.control.alerts import end_alert
from modelserver.control.hooks import call_again
from modelserver.fleet.file import Fleet
from modelserver.fleet.sections import AlertsSection, RedisSection
from modelserver.settings import Settings
from modelserver.store import connect
from modelserver.store.fleet.alerts import AlertRecord, add
from modelserver.store.fleet.unsent_alerts import UnsentAlert, keep_unsent, read_unsent
from tests.support.processes import ValkeyProcess, eventually

HOOK = "import sys; print(sys.stdin.read(), file=open(sys.argv[1], 'a'))"


def test_an_end_has_the_beginning_told_at_once_and_first(
    valkey: ValkeyProcess, tmp_path: Path
):
    told = tmp_path / "told"
    alerts = AlertsSection(command=(sys.executable, "-c", HOOK, str(told)))
    fleet = Fleet(redis=RedisSection(url=valkey.url), alerts=alerts)
    settings = Settings(fleet, tmp_path / "fleet.toml", tmp_path, "a")
    store = connect(settings)
    now = store.now()
    alert = AlertRecord("m", "m is down", now - 60, "down")
    add(store, alert)
    # It was down for long, and would not be tried for an hour.
    keep_unsent(store, "k", UnsentAlert("command", alert, tries=9, due=now + 3000))
    end_alert(store, settings, "m", "m is back", now, "down")
    for left in (1, 0):
        call_again(store, settings, now)
        eventually(lambda left=left: len(read_unsent(store)) == left)
    events = [json.loads(line)["event"] for line in told.read_text().splitlines()]
    assert events == ["raised", "ended"]
    store.client.close()
