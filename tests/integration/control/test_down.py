"""What requests do whose model is down, on real workers."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import chord, group

from modelserver.errors import ModelUnavailableError
from modelserver.store.fleet.availability import publish
from modelserver.store.fleet.workers import read_backlog
from modelserver.values import EngineState
from tests.engine.openai_api import answer_text
from tests.support.processes import ValkeyProcess, eventually
from tests.support.workers import (
    PATIENCE,
    FleetSite,
    Publications,
    answers,
    open_fleet,
)

MODELS = """
[[models]]
name = "strict"
engine = "command"
command = ["true"]
when_down = "fail"

[[models]]
name = "big"
engine = "command"
command = ["true"]
when_down = "fallback"
fallback = "writer"
"""
SINCE = 1_800_000_000.0
#: Nobody is control here who would say it again.
STANDS_SECONDS = 3_600.0
STRICT_DOWN = (
    "strict has been down since 2027-01-15 08:00:00 UTC (strict-0 is FATAL: no room), "
    'and the fleet file says when_down = "fail"; see `modelserver why strict`, and '
    "send the request again when it is back"
)


@pytest.fixture
def fleet(tmp_path: Path, valkey: ValkeyProcess) -> Iterator[FleetSite]:
    with open_fleet(tmp_path, valkey.url, MODELS) as fleet:
        yield fleet


def down(fleet: FleetSite, *models: str) -> None:
    """Have control find these models down, and the others well."""
    then = {"strict": ("fail", ""), "big": ("fallback", "writer")}
    standings = {
        name: {
            "standing": "down" if name in models else "serving",
            "reason": f"{name}-0 is FATAL: no room" if name in models else "1 ready",
            "since": SINCE if name in models else None,
            "then": then[name][0] if name in models else "go",
            "fallback": then[name][1] if name in models else "",
        }
        for name in then
    }
    publish(fleet.store, standings, STANDS_SECONDS)


def test_a_request_to_a_model_that_is_down_fails_before_it_is_sent(fleet: FleetSite):
    down(fleet, "strict")
    with pytest.raises(ModelUnavailableError) as caught:
        fleet.complete.delay("now", model="strict")
    assert str(caught.value) == STRICT_DOWN
    assert read_backlog(fleet.store, "strict") == 0
    assert fleet.complete.delay("other").id


def test_a_client_hears_within_a_second_that_a_model_is_back(fleet: FleetSite):
    down(fleet, "strict")
    with pytest.raises(ModelUnavailableError):
        fleet.complete.delay("now", model="strict")
    down(fleet)

    def accepted() -> str:
        try:
            return str(fleet.complete.delay("now", model="strict").id)
        except ModelUnavailableError:
            return ""

    assert eventually(accepted)


def test_what_control_no_longer_says_holds_nobody_up(fleet: FleetSite):
    down(fleet, "strict")
    fleet.store.client.pexpire(fleet.store.keys.availability, 100)
    eventually(lambda: not fleet.store.client.exists(fleet.store.keys.availability))
    assert fleet.complete.delay("now", model="strict").id


def test_requests_that_wait_for_a_model_that_goes_down_fail_once_each(
    fleet: FleetSite, valkey: ValkeyProcess
):
    waiting = fleet.send([f"wait {n}" for n in range(300)], kwargs={"model": "strict"})
    heard = Publications(valkey.url, fleet.store.keys.prefix)
    down(fleet, "strict")
    fleet.worker()
    fleet.worker()
    for each in waiting:
        with pytest.raises(ModelUnavailableError, match="down since 2027-01-15"):
            each.get(timeout=PATIENCE)
    assert set(heard.seen().values()) == {1}
    assert len(heard.seen()) == len(waiting)
    heard.close()
    eventually(lambda: fleet.held() == 0, PATIENCE)
    assert read_backlog(fleet.store, "strict") == 0


def test_a_worker_killed_while_it_refuses_leaves_no_request_without_its_error(
    fleet: FleetSite, valkey: ValkeyProcess
):
    waiting = fleet.send([f"wait {n}" for n in range(2000)], kwargs={"model": "strict"})
    heard = Publications(valkey.url, fleet.store.keys.prefix)
    down(fleet, "strict")
    first = fleet.worker()
    # At the first one: whoever listens to all that come hears of no half.
    eventually(heard.hear, PATIENCE)
    first.signal(signal.SIGKILL)
    first.wait()
    assert len(heard.seen()) < len(waiting)
    fleet.worker()
    eventually(lambda: len(heard.seen()) == len(waiting), PATIENCE)
    eventually(lambda: fleet.held() == 0, PATIENCE)
    assert set(heard.seen().values()) == {1}
    heard.close()


def test_a_chord_over_a_model_that_is_down_fails_and_does_not_hang(fleet: FleetSite):
    fleet.engine("writer-0")
    parts = [
        fleet.complete.s("part", model="writer", max_tokens=2),
        fleet.complete.s("part", model="strict", max_tokens=2),
    ]
    whole = chord(group(parts), fleet.embed.s())()
    down(fleet, "strict")
    fleet.worker()
    with pytest.raises(Exception, match="strict has been down"):
        whole.get(timeout=PATIENCE)


def test_requests_go_on_as_usual_when_the_model_is_back(fleet: FleetSite):
    down(fleet, "strict")
    fleet.worker()
    fleet.engine("strict-0", model="strict")
    down(fleet)

    def answered() -> str:
        try:
            done = fleet.complete.delay("back", model="strict")
        except ModelUnavailableError:
            return ""
        return str(done.get(timeout=PATIENCE))

    assert eventually(answered, PATIENCE) == answer_text("back")


def test_requests_of_a_model_that_is_down_are_answered_by_its_fallback(
    fleet: FleetSite,
):
    early = fleet.complete.delay("early", model="big", raw=True)
    fleet.engine("writer-0")
    down(fleet, "big")
    fleet.worker()
    late = fleet.complete.delay("late", model="big", raw=True)
    for answer in (early.get(timeout=PATIENCE), late.get(timeout=PATIENCE)):
        assert (answer["model"], answer["fallback_for"]) == ("writer", "big")
        assert answer["engine"] == "writer-0"
    plain = fleet.complete.delay("plain", model="big")
    assert plain.get(timeout=PATIENCE) == answer_text("plain")
    own = fleet.complete.delay("own", raw=True).get(timeout=PATIENCE)
    assert "fallback_for" not in own
    assert "big is down: its requests go to writer" in fleet.workers[0].said()


def test_a_fallback_gets_no_more_than_its_engines_take(fleet: FleetSite):
    fleet.engine("writer-0", "--latency", "0.2", limit=8)
    down(fleet, "big")
    fleet.worker()
    own = fleet.send([f"own {n}" for n in range(40)])
    other = fleet.send([f"big {n}" for n in range(40)], kwargs={"model": "big"})
    seen = []

    def done() -> bool:
        seen.append(fleet.in_flight("writer-0"))
        return all(each.ready() for each in (*own, *other))

    eventually(done, PATIENCE)
    assert max(seen) <= 8
    assert len(answers([*own, *other])) == 80


def test_what_still_waits_when_the_model_is_back_is_answered_by_itself(
    fleet: FleetSite,
):
    fleet.engine("writer-0", limit=8)
    fleet.engines["writer-0"].fault(hang=True)
    down(fleet, "big")
    fleet.worker()
    sent = fleet.send(
        [f"big {n}" for n in range(30)], kwargs={"model": "big", "raw": True}
    )
    eventually(lambda: fleet.in_flight("writer-0") == 8, PATIENCE)
    fleet.engine("big-0", model="big")
    down(fleet)
    eventually(lambda: sum(each.ready() for each in sent) == 22, PATIENCE)
    fleet.engines["writer-0"].fault()
    found = [each.get(timeout=PATIENCE) for each in sent]
    assert sum("fallback_for" in each for each in found) == 8
    assert sum(each["engine"] == "big-0" for each in found) == 22


def test_a_fallback_that_dies_gives_its_guests_back_to_their_queue(fleet: FleetSite):
    fleet.engine("writer-0")
    fleet.engines["writer-0"].fault(hang=True)
    down(fleet, "big")
    fleet.worker()
    guest = fleet.complete.delay("guest", model="big")
    eventually(lambda: fleet.in_flight("writer-0") == 1, PATIENCE)
    fleet.report("writer-0", EngineState.BACKOFF)
    fleet.engines["writer-0"].kill()
    eventually(lambda: read_backlog(fleet.store, "big") == 1, PATIENCE)
    message = json.loads(str(fleet.store.client.lindex("ms:big", 0)))
    assert message["headers"]["id"] == guest.id
