"""What is killed or hangs comes back by itself, and no request is lost or run twice."""

import os
import signal
from collections.abc import Iterator, Sequence

import psutil
import pytest
from celery.result import AsyncResult

from modelserver.store.fleet.engines import read_engines
from modelserver.store.fleet.hosts import read_hosts
from modelserver.store.fleet.workers import read_workers
from tests.acceptance.product import CHAT, PATIENCE, Product
from tests.support.processes import eventually, lives
from tests.support.workers import Publications, answers

pytestmark = pytest.mark.sglang

LOAD = 60


@pytest.fixture
def publications(fleet: Product) -> Iterator[Publications]:
    """What is published while the test runs."""
    heard = Publications(fleet.settings.results_url, fleet.settings.fleet.redis.prefix)
    yield heard
    heard.close()


def under_load(fleet: Product) -> list[AsyncResult]:
    """Requests of a second and more, some of which the engine works on by now."""
    results = fleet.send(LOAD, max_tokens=150)
    eventually(lambda: fleet.running(), PATIENCE)
    return results


def assert_each_answered_once(
    results: Sequence[AsyncResult], publications: Publications
) -> None:
    texts = answers(results, PATIENCE)
    assert all(texts)
    seen = publications.seen()
    assert {result.id: seen[result.id] for result in results} == dict.fromkeys(
        (result.id for result in results), 1
    )


def test_killed_engine_is_relaunched_and_loses_no_request(
    fleet: Product, publications: Publications
) -> None:
    before = fleet.engine()
    children = psutil.Process(before.pid).children(recursive=True)
    results = under_load(fleet)
    os.kill(before.pid, signal.SIGKILL)
    assert_each_answered_once(results, publications)
    assert fleet.is_ready(before.incarnation + 1)
    assert not lives(before.pid)
    assert children
    assert not [child for child in children if lives(child.pid)]


def test_hung_engine_is_relaunched_by_control_and_loses_no_request(
    fleet: Product, publications: Publications
) -> None:
    before = fleet.engine()
    results = under_load(fleet)
    os.killpg(before.pid, signal.SIGSTOP)
    assert_each_answered_once(results, publications)
    assert fleet.is_ready(before.incarnation + 1)
    assert not lives(before.pid)
    decision = fleet.last_decision("relaunch")
    assert decision["engine"] == CHAT
    assert decision["incarnation"] == str(before.incarnation)
    assert decision["reason"].startswith("hung: no token for ")
    assert decision["hang_seconds"] == "12"


def test_busy_engine_without_a_finished_answer_is_not_taken_for_hung(
    fleet: Product,
) -> None:
    before = fleet.engine()
    # Long answers in every slot: what was asked for a sign of life would wait as well.
    results = fleet.send(2 * before.limit, max_tokens=4000)
    sent_at = fleet.store.now()

    def proved() -> bool:
        assert not any(result.ready() for result in results)
        return fleet.engine().alive_at > sent_at + 8

    eventually(proved)
    fleet.give_up(results)
    assert fleet.is_ready(before.incarnation)


def test_killed_worker_loses_no_request(
    fleet: Product, publications: Publications
) -> None:
    ((_, worker),) = read_workers(fleet.store).items()
    results = under_load(fleet)
    os.kill(worker["pid"], signal.SIGKILL)
    assert_each_answered_once(results, publications)
    assert "worker ended (status -9), starts again in" in fleet.said()
    assert not lives(worker["pid"])


def test_killed_launcher_comes_back_and_goes_on_with_the_same_engines(
    fleet: Product, publications: Publications
) -> None:
    before, launcher = read_engines(fleet.store), read_hosts(fleet.store)[0].pid
    results = under_load(fleet)
    os.kill(launcher, signal.SIGKILL)

    def adopted() -> bool:
        hosts, engines = read_hosts(fleet.store), read_engines(fleet.store)
        assert [host.pid for host in hosts] != [launcher]
        return bool(hosts) and all(
            engine.serves and engine.alive_at > before[name].alive_at
            for name, engine in engines.items()
        )

    eventually(adopted, PATIENCE)
    results += fleet.send(LOAD, max_tokens=8, name="afterwards")
    assert_each_answered_once(results, publications)
    after = read_engines(fleet.store)
    assert {name: (e.pid, e.incarnation) for name, e in after.items()} == {
        name: (e.pid, e.incarnation) for name, e in before.items()
    }
