"""More requests than the fleet can answer in their deadline, and one slow engine."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from modelserver.store.batch import SUBMITTER
from modelserver.store.fleet.measurements import read_counters, read_model_times
from modelserver.store.histograms import WAITED
from modelserver.values import EngineState, Outcome
from tests.integration.gateway.conftest import Served
from tests.support.processes import eventually
from tests.support.shared_fleet import prompts
from tests.support.workers import PATIENCE, FleetSite
from workers.requests.hedges import SHARE

ASKED = {"model": "writer", "prompt": "one", "max_tokens": 1}
#: What a request takes on the engine, which takes one at a time, in seconds.
SECONDS = 0.2
#: Requests whose times are learnt, all of one size.
LEARNT = 110


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

    def learns() -> bool:
        """Ask, and look whether the slow engine answered, whose time is learnt."""
        status, _, headers = ask(gateway, PATIENCE)
        assert status == 200
        return headers["x-modelserver-engine"] == "writer-1"

    # The worker may not know at once which one is ready.
    eventually(learns)
    for _ in range(3):
        assert learns()
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


def test_a_slow_engine_does_not_hold_up_a_request_that_may_be_hedged(
    gateway: Served, fleet: FleetSite
):
    # Of a model that no other test asks for: what it has answered is counted later.
    fast = fleet.engines["other-0"]
    slow = fleet.engine("other-2", "--latency", "0.01", model="other")
    asked: list[str] = []

    def waits() -> int:
        counters = read_model_times(fleet.store, ["other"])["other"]
        return sum(WAITED.read(counters).counts)

    def ask(prompt: str | list[str] = "one two") -> bool:
        body = ASKED | {"model": "other", "prompt": prompt}
        asked.extend(["one two"] if prompt == "one two" else prompt)
        status, *_ = gateway.ask(
            "/v1/completions", body, headers={"x-modelserver-hedge": "true"}
        )
        return status == 200

    assert ask(["one two"] * LEARNT)
    slow.fault(slow=1e6)
    with ThreadPoolExecutor() as pool:
        late = pool.submit(ask)
        while not slow.stats()["in_flight"]:
            if late.done():
                late = pool.submit(ask)
        # With each request there is a little more for a second engine.
        eventually(lambda: ask() and late.done(), PATIENCE)
    assert late.result()
    eventually(lambda: Outcome.CANCELLED in read_counters(fleet.store, "other-2"))
    counters = read_counters(fleet.store, "other-2")
    # Its wait ended when the first engine was asked.
    eventually(lambda: waits() == len(asked))
    assert slow.stats()["aborted"] >= 1
    assert Outcome.ENGINE_FAULT not in counters
    received = fast.stats()["received"] + slow.stats()["received"]
    assert 1 <= received - len(asked) <= SHARE * len(asked)
