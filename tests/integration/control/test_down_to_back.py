"""A model that goes down and comes back, with real control, launcher and worker."""

from pathlib import Path

import pytest

from modelserver.errors import ModelUnavailableError
from modelserver.store.fleet.alerts import last_alerts
from tests.engine.openai_api import answer_text
from tests.support.fleets import model, open_hosts
from tests.support.processes import ValkeyProcess, eventually


def test_what_waits_fails_when_the_model_goes_down_and_is_answered_when_it_is_back(
    tmp_path: Path, valkey: ValkeyProcess
):
    well = model("m", when_down="fail", down_after_seconds=3)
    broken = model("m", when_down="fail", down_after_seconds=3, command=["false"])
    with open_hosts(tmp_path, valkey.url, broken) as hosts:
        waiting = [hosts.complete.delay(f"wait {n}") for n in range(20)]
        hosts.launch("a")
        hosts.worker("a")
        for each in waiting:
            with pytest.raises(ModelUnavailableError, match="m-0 is BACKOFF"):
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
        told = [(each.about, each.event) for each in last_alerts(hosts.store, 10)]
        assert told == [("m", "raised"), ("m", "ended")]
