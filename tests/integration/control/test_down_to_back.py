"""A model that goes down and comes back, with real control, launcher and worker."""

import re
from pathlib import Path

import pytest

from modelserver.errors import ModelUnavailableError
from modelserver.store.fleet.alerts import last_alerts
from modelserver.store.fleet.availability import standings
from tests.engine.openai_api import answer_text
from tests.support.fleets import model, open_hosts
from tests.support.processes import ValkeyProcess, eventually

#: What is said of an engine that ends as soon as it starts, and is started again.
FAILS = re.compile("m-0 is (BACKOFF|STARTING|FATAL)")


def test_what_waits_fails_when_the_model_goes_down_and_is_answered_when_it_is_back(
    tmp_path: Path, valkey: ValkeyProcess
):
    well = model("m", when_down="fail", down_after_seconds=3)
    broken = model("m", when_down="fail", down_after_seconds=3, command=["false"])
    with open_hosts(tmp_path, valkey.url, broken) as hosts:
        waiting = [hosts.complete.delay(f"wait {n}") for n in range(20)]
        hosts.launch("a")
        # Before that it is down for want of a launcher.
        eventually(lambda: FAILS.search(str(standings(hosts.store).get("m"))))
        hosts.worker("a")
        for each in waiting:
            with pytest.raises(ModelUnavailableError, match=FAILS):
                each.get(timeout=60)
        with pytest.raises(ModelUnavailableError, match="m has been down since"):
            hosts.complete.delay("now")
        hosts.apply(well)
        hosts.ready("m-0")

        def answered() -> str:
            try:
                return str(hosts.complete.delay("back").get(timeout=60))
            except ModelUnavailableError:
                return ""

        assert eventually(answered) == answer_text("back")

        def told() -> list[tuple[str, str]]:
            alerts = last_alerts(hosts.store, 10)
            return [(e.about, e.event) for e in alerts if e.kind == "down"]

        # Requests are accepted before people are told.
        eventually(lambda: told() == [("m", "raised"), ("m", "ended")])
