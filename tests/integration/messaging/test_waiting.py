"""Results are listened for while somebody waits for them, and read in blocks."""

import gc
import threading
import time
from pathlib import Path

import pytest
from celery import chain, group
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import AsyncResult, ResultSet

from modelserver.messaging.listening import WINDOW
from tests.support.processes import ValkeyProcess, eventually
from tests.support.workers import PATIENCE, FleetSite, open_fleet

#: Celery's own call.
setex = pytest.mark.filterwarnings("ignore:Call to deprecated setex")


def channels(fleet: FleetSite) -> int:
    return len(fleet.store.client.pubsub_channels("*celery-task-meta-*"))


def test_what_nobody_waits_for_is_not_subscribed_to(fleet: FleetSite):
    held = fleet.send([f"held {place}" for place in range(300)])
    together = ResultSet(held, app=fleet.app)
    assert channels(fleet) == 0
    assert len(together.get(timeout=PATIENCE)) == 300
    eventually(lambda: channels(fleet) == 0, within=PATIENCE)


def test_a_wait_that_ends_early_is_listened_for_no_more(fleet: FleetSite):
    unknown = fleet.complete.AsyncResult("nobody sends this")
    with pytest.raises(CeleryTimeoutError):
        unknown.get(timeout=0.2)
    assert not fleet.app.backend.result_consumer.listener.listening


def test_answers_come_while_many_threads_wait(fleet: FleetSite):
    texts: list[str] = []

    def ask(place: int) -> None:
        texts.append(fleet.complete.delay(f"thread {place}").get(timeout=PATIENCE))

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(texts) == 20


def test_callbacks_are_called_while_nobody_waits(fleet: FleetSite):
    called: list[object] = []
    fleet.complete.delay("then").then(called.append)
    job = group(fleet.complete.s(f"part {place}") for place in range(5))()
    job.then(called.append)
    eventually(lambda: len(called) == 2, within=PATIENCE)


def test_a_callback_that_fails_stops_no_other(fleet: FleetSite):
    called: list[object] = []
    fleet.complete.delay("first").then(lambda result: 1 / 0)
    fleet.complete.delay("second").then(called.append)
    eventually(lambda: called, within=PATIENCE)


def test_groups_count_and_iterate_in_blocks(fleet: FleetSite):
    job = group(fleet.complete.s(f"member {place}") for place in range(50))()
    assert len({task for task, _ in job.iter_native(timeout=PATIENCE)}) == 50
    assert job.ready()
    assert job.completed_count() == 50
    assert len(job.join(timeout=PATIENCE)) == 50


def test_groups_within_groups_are_read(fleet: FleetSite):
    inner = group(fleet.complete.s(f"inner {place}") for place in range(3))()
    outer = fleet.app.ResultSet([fleet.complete.delay("outer"), inner])
    found = dict(outer.iter_native(timeout=PATIENCE))
    assert set(found) == {outer.results[0].id, inner.id}
    assert outer.ready()


def test_a_failed_step_ends_the_wait_for_the_last(fleet: FleetSite):
    last = chain(fleet.complete.s("a", deadline=0.001), fleet.complete.s())()
    with pytest.raises(Exception, match="deadline"):
        last.get(timeout=PATIENCE)


def test_a_plain_result_of_celery_waits_as_well(fleet: FleetSite):
    sent = fleet.complete.delay("by its id")
    assert AsyncResult(sent.id, app=fleet.app).get(timeout=PATIENCE)


def test_a_message_is_seen_before_the_answer(fleet: FleetSite):
    seen: list[str] = []
    fleet.complete.delay("watched").get(
        timeout=PATIENCE, on_message=lambda meta: seen.append(meta["status"])
    )
    assert seen[-1] == "SUCCESS"


@setex
def test_more_results_than_are_listened_for_at_once_arrive(tmp_path: Path):
    """The last come first: what is not listened for is looked through."""
    valkey = ValkeyProcess(tmp_path).start()
    with open_fleet(tmp_path, valkey.url) as site:
        backend = site.app.backend
        results = [
            site.complete.AsyncResult(f"r{place}") for place in range(WINDOW + 1_500)
        ]
        arrivals = site.app.ResultSet(results).iter_native(timeout=PATIENCE)
        backend.store_result("r11400", "late in the list", "SUCCESS")
        assert next(arrivals)[0] == "r11400"
        backend.store_result("r3", "early in the list", "SUCCESS")
        assert next(arrivals)[0] == "r3"
        listening = backend.result_consumer.listener.listening
        assert len(listening) <= WINDOW
        arrivals.close()
        site.app.backend.result_consumer.stop()
    valkey.stop()


@setex
def test_waits_outlive_a_restart_of_the_server(tmp_path: Path):
    valkey = ValkeyProcess(tmp_path).start()
    with open_fleet(tmp_path, valkey.url) as site:
        got: list[object] = []
        site.complete.AsyncResult("a").then(lambda result: got.append(result.result))
        eventually(lambda: channels(site) == 1, within=PATIENCE)
        valkey.stop()
        valkey.start()
        site.app.backend.store_result("a", "an answer", "SUCCESS")
        eventually(lambda: got == ["an answer"], within=PATIENCE)
    valkey.stop()


def test_a_result_is_forgotten_at_once_where_the_server_is_gone(tmp_path: Path):
    valkey = ValkeyProcess(tmp_path).start()
    with open_fleet(tmp_path, valkey.url) as site:
        held = site.complete.delay("held")
        valkey.stop()
        began = time.monotonic()
        with pytest.raises(CeleryTimeoutError):
            held.get(timeout=0.5)
        del held
        gc.collect()
        assert time.monotonic() - began < 10
