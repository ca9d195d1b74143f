"""A real launcher holds engines, sends them canaries and reads their metrics."""

import json
import signal
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from modelserver.api import InferenceTask, client
from modelserver.measured import Canary
from modelserver.settings import load
from modelserver.store.fleet.measurements import read_canaries, read_metrics
from modelserver.store.fleet.workers import read_loads, read_workers
from modelserver.values import EngineReport, EngineState
from tests.engine.openai_api import answer_text
from tests.support.launchers import (
    Site,
    fault,
    in_flight,
    open_site,
    section,
    stats,
)
from tests.support.processes import ValkeyProcess, end, eventually
from tests.support.workers import WorkerProcess

#: Two requests at once, ten milliseconds for a token.
STEPS = ("--step-seconds", "0.01", "--max-running", "2")


@pytest.fixture
def site(tmp_path: Path, valkey: ValkeyProcess) -> Iterator[Site]:
    with open_site(tmp_path, valkey, section("steps", *STEPS)) as site:
        yield site


def canaries(site: Site, engine: str, number: int) -> list[Canary]:
    return [each for each in read_canaries(site.store)[engine] if each.round == number]


def completed(engine: EngineReport) -> int:
    count: int = stats(engine)["completed"]
    return count


def begin(engine: EngineReport, requests: int) -> None:
    """Send it requests that take half a minute; nobody waits for the answers."""
    body = json.dumps({"prompt": "long", "max_tokens": 3000}).encode()

    def send() -> None:
        with suppress(OSError):
            urllib.request.urlopen(engine.url + "/v1/completions", body).close()

    for _ in range(requests):
        threading.Thread(target=send, daemon=True).start()


@contextmanager
def working(site: Site) -> Iterator[InferenceTask]:
    """A worker of this host, and a client's task."""
    log = site.folder / "worker.log"
    worker = WorkerProcess(log, site.environment, f"w@{site.folder.name}")
    app = client(load(site.environment))
    try:
        eventually(lambda: read_workers(site.store) and "ready." in worker.said())
        yield app.modelserver_tasks[0]
    finally:
        app.backend.result_consumer.stop()
        app.close()
        end(worker.process)


def test_held_engine_stays_as_it_is(site: Site) -> None:
    site.launch()
    wish = site.want("good")
    before = site.reaches("good-0", EngineState.READY)
    site.wish("good-0", replace(wish, hold="draining: slow", abort=1, limit=8))
    eventually(lambda: site.reaches("good-0", EngineState.READY).hold)
    held = site.reaches("good-0", EngineState.READY)
    assert (held.hold, held.abort, held.limit) == ("draining: slow", 1, 8)
    assert (held.pid, held.incarnation) == (before.pid, 1)
    site.wish("good-0", wish)
    eventually(lambda: not site.reaches("good-0", EngineState.READY).hold)


def test_requests_are_called_off_by_a_wish(site: Site) -> None:
    """From control's wish over the launcher to the worker, and to another engine."""
    site.launch()
    wish = site.want("good")
    fault(site.reaches("good-0", EngineState.READY), hang=True)
    texts = [f"request {place}" for place in range(10)]
    with working(site) as complete:
        results = [complete.delay(text, model="good") for text in texts]
        old = site.reaches("good-0", EngineState.READY)
        eventually(lambda: len(stats(old)["in_flight"]) >= 10)
        site.wish("good-1", replace(wish, spec=replace(wish.spec, id="good-1")))
        new = site.reaches("good-1", EngineState.READY)
        site.wish("good-0", replace(wish, hold="draining: hung", abort=1))
        found = [result.get(timeout=60) for result in results]
    assert found == [answer_text(text) for text in texts]
    done = stats(new)["executed"]
    assert {text: done.get(text) for text in texts} == dict.fromkeys(texts, 1)
    assert site.reaches("good-0", EngineState.READY).pid == old.pid


def test_requests_of_an_earlier_incarnation_are_not_called_off(site: Site) -> None:
    site.launch()
    site.wish("good-0", replace(site.want("good"), abort=7))
    assert site.reaches("good-0", EngineState.READY).abort == 0


def test_engine_has_its_first_canaries_before_it_serves(site: Site) -> None:
    site.launch()
    site.want("steps")
    engine = site.reaches("steps-0", EngineState.READY)
    found = eventually(lambda: read_canaries(site.store)["steps-0"])
    assert [each.loaded for each in found] == [True, False, False, False]
    assert {(each.incarnation, each.round) for each in found} == {(1, 0)}
    assert all(each.at < engine.since for each in found)
    # 32 tokens of 10 ms each, and four times that where two run at once.
    assert all(0.3 < each.seconds < 2.0 for each in found if not each.loaded)
    assert found[0].seconds > 1.5 * min(each.seconds for each in found)


def test_round_of_canaries_waits_until_the_engine_is_empty(site: Site) -> None:
    site.launch()
    wish = site.want("good")
    engine = site.reaches("good-0", EngineState.READY)
    in_flight(site, "good-0", 1, idle=60.0)
    eventually(lambda: "good-0" in read_loads(site.store))
    site.wish("good-0", replace(wish, hold="verify: slow", canary=3))
    held = eventually(lambda: site.reaches("good-0", EngineState.READY).hold)
    assert held
    # Probes of life come one by one; a round would be eleven at once.
    before = completed(engine)
    alive_at = site.reaches("good-0", EngineState.READY).alive_at
    later = alive_at + 5
    eventually(lambda: site.reaches("good-0", EngineState.READY).alive_at > later)
    assert completed(engine) - before < 6
    assert canaries(site, "good-0", 3) == []
    in_flight(site, "good-0", 0, idle=60.0)
    found = eventually(lambda: canaries(site, "good-0", 3))
    assert [each.loaded for each in found] == [True, False, False, False]


def test_round_with_a_request_beside_it_is_repeated(site: Site) -> None:
    site.launch()
    wish = site.want("good")
    engine = site.reaches("good-0", EngineState.READY)
    in_flight(site, "good-0", 0, idle=60.0)
    before = completed(engine)
    site.wish("good-0", replace(wish, hold="verify: slow", canary=1))
    eventually(lambda: completed(engine) - before >= 11)
    in_flight(site, "good-0", 1, idle=60.0)
    alive_at = site.reaches("good-0", EngineState.READY).alive_at
    later = alive_at + 3
    eventually(lambda: site.reaches("good-0", EngineState.READY).alive_at > later)
    assert canaries(site, "good-0", 1) == []
    in_flight(site, "good-0", 0, idle=60.0)
    eventually(lambda: canaries(site, "good-0", 1))


def test_next_launcher_does_not_repeat_a_round(site: Site) -> None:
    launcher = site.launch()
    wish = site.want("good")
    site.reaches("good-0", EngineState.READY)
    site.wish("good-0", replace(wish, canary=1))
    eventually(lambda: canaries(site, "good-0", 1))
    launcher.process.send_signal(signal.SIGQUIT)
    assert launcher.wait() == 0
    site.launch()
    eventually(lambda: "adopted" in site.said())
    site.reaches("good-0", EngineState.READY)
    site.wish("good-0", replace(wish, canary=2))
    eventually(lambda: canaries(site, "good-0", 2))
    assert len(canaries(site, "good-0", 1)) == len(canaries(site, "good-0", 2)) == 4


def test_metrics_arrive_while_an_engine_has_requests(site: Site) -> None:
    site.launch()
    site.want("steps")
    engine = site.reaches("steps-0", EngineState.READY)
    assert read_metrics(site.store) == {}
    begin(engine, 6)
    in_flight(site, "steps-0", 6)
    eventually(lambda: read_metrics(site.store).get("steps-0"))
    eventually(lambda: read_metrics(site.store)["steps-0"].waiting == 4)
    found = read_metrics(site.store)["steps-0"]
    assert 0 < site.store.now() - found.tokens_at < 10
    assert found.itl_seconds == 0.0  # It tells nothing of that.
    in_flight(site, "steps-0", 0)
    eventually(lambda: read_metrics(site.store) == {})
