"""More requests than the fleet can answer in their deadline."""

from typing import Any

from modelserver.store.batch import SUBMITTER
from modelserver.values import EngineState
from tests.integration.gateway.conftest import Served
from tests.support.processes import eventually
from tests.support.shared_fleet import prompts
from tests.support.workers import PATIENCE, FleetSite

ASKED = {"model": "writer", "prompt": "one", "max_tokens": 1}
#: What a request takes on the engine, which takes one at a time, in seconds.
SECONDS = 0.2


def ask(gateway: Served, seconds: float) -> tuple[int, Any, dict[str, str]]:
    headers = {
        "x-modelserver-deadline": str(seconds),
        "x-modelserver-submitter": "ana",
    }
    return gateway.ask("/v1/completions", ASKED, headers=headers)


def test_a_request_beyond_its_deadline_is_refused_at_once(
    gateway: Served, fleet: FleetSite
):
    fleet.engine("writer-1", "--latency", str(SECONDS), limit=1)
    fleet.report("writer-0", EngineState.STARTING)
    for _ in range(3):
        assert ask(gateway, PATIENCE)[0] == 200
    # Filler, whatever there is of it, is overtaken.
    fleet.send(prompts("row", 50), priority=9)
    assert ask(gateway, PATIENCE / 2)[0] == 200
    # Another's take turns with it, and its own come first.
    fleet.send(prompts("of bob", 30), headers={SUBMITTER: "bob"})
    assert ask(gateway, PATIENCE / 2)[0] == 200
    fleet.send(prompts("of ana", 50), headers={SUBMITTER: "ana"})
    refused = []
    eventually(
        lambda: refused.append(ask(gateway, 2.0)) or refused[-1][0] == 429, PATIENCE
    )
    _, body, headers = refused[-1]
    assert body["error"]["code"] == "rate_limit_exceeded"
    assert int(headers["retry-after"]) >= 1
    metrics = gateway.ask("/metrics")[1].decode()
    assert 'modelserver_gateway_refused_total{model="writer"} 1.0' in metrics
