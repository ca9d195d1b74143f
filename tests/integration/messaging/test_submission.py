"""Where messages go: ids that were used before, steps of chains, others' queues."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from celery import chain, chord, group

from modelserver.api import client
from modelserver.errors import DeadlineExceededError, RequestError
from modelserver.messaging.wire import COMPLETE
from tests.support.processes import end, eventually
from tests.support.workers import PATIENCE, FleetSite

#: A user's own application, with stock Celery.
SHOP = """
from celery import Celery

app = Celery("shop", broker="{url}", backend="{url}")
app.conf.broker_transport_options = {{"global_keyprefix": "ms:"}}
app.conf.result_backend_transport_options = {{"global_keyprefix": "ms:"}}

@app.task(name="save")
def save(text):
    return "saved " + text
"""


def executed(fleet: FleetSite, prompt: str) -> int:
    return int(fleet.engines["writer-0"].stats()["executed"].get(prompt, 0))


@pytest.mark.parametrize(
    "wrong",
    [{"priority": 10}, {"priority": -1}, {"priority": "high"}, {"task_id": 17}],
    ids=str,
)
def test_a_wrong_option_is_refused(fleet: FleetSite, wrong: dict[str, object]):
    (name,) = wrong
    with pytest.raises(RequestError, match=f"^{name} must be"):
        fleet.complete.apply_async(("a",), **wrong)


# The same id again.


def test_a_new_submission_replaces_an_error(fleet: FleetSite):
    late = fleet.complete.apply_async(("a",), {"deadline": 0.001}, task_id="again-1")
    with pytest.raises(DeadlineExceededError):
        late.get(timeout=PATIENCE)
    again = fleet.complete.apply_async(("again 1",), task_id="again-1")
    assert again.get(timeout=PATIENCE)


def test_an_answer_is_given_again_and_not_executed_again(fleet: FleetSite):
    first = fleet.complete.apply_async(("again 2",), task_id="again-2")
    text = first.get(timeout=PATIENCE)
    again = fleet.complete.apply_async(("again 2",), task_id="again-2")
    assert again.get(timeout=PATIENCE) == text
    assert executed(fleet, "again 2") == 1


def test_what_hangs_on_an_answered_request_still_runs(fleet: FleetSite):
    def steps() -> object:
        return chain(
            fleet.complete.s("again 3").set(task_id="again-3"), fleet.complete.s()
        )().get(timeout=PATIENCE)

    assert steps()
    assert steps()


def test_the_same_id_with_results_on_another_server(
    fleet: FleetSite,
):
    # The same server by another name: what differs is the way that is taken.
    url = fleet.settings.redis_url.replace("127.0.0.1", "localhost")
    redis_section = fleet.settings.fleet.redis.model_copy(update={"results_url": url})
    config = fleet.settings.fleet.model_copy(update={"redis": redis_section})
    app = client(replace(fleet.settings, fleet=config))
    complete = app.modelserver_tasks[0]
    late = complete.apply_async(("a",), {"deadline": 0.001}, task_id="again-4")
    with pytest.raises(DeadlineExceededError):
        late.get(timeout=PATIENCE)
    for _ in range(2):
        again = complete.apply_async(("again 4",), task_id="again-4")
        assert again.get(timeout=PATIENCE)
    assert executed(fleet, "again 4") == 1
    app.backend.result_consumer.stop()
    app.close()


# Steps.


def test_steps_have_the_priority_and_the_submitter_of_the_first(fleet: FleetSite):
    first = fleet.complete.s("first").set(priority=9, headers={"submitter": "nightly"})
    own = fleet.complete.s().set(priority=3)
    with Published(fleet) as published:
        steps = chain(first, own, group([fleet.complete.s()] * 2), fleet.embed.s())
        steps().get(timeout=PATIENCE)
    assert published.seen == [("nightly", 9), ("nightly", 3)] + [("nightly", 9)] * 3


def test_the_body_of_a_chord_and_a_link_are_steps_too(fleet: FleetSite):
    options = {"priority": 6, "headers": {"submitter": "nightly"}}
    parts = [fleet.complete.s(f"part {n}").set(**options) for n in range(2)]
    with Published(fleet) as published:
        chord(parts, fleet.embed.s())().get(timeout=PATIENCE)
        linked = fleet.complete.si("linked").set(task_id="linked")
        fleet.complete.apply_async(("a",), link=linked, **options)
        fleet.complete.AsyncResult("linked").get(timeout=PATIENCE)
    assert published.seen == [("nightly", 6)] * 5


class Published:
    """Submitter and priority of each request that is published meanwhile, in order."""

    def __init__(self, fleet: FleetSite) -> None:
        self._client = fleet.store.client
        self._keys = fleet.store.keys
        self.seen: list[tuple[str, int]] = []

    def __enter__(self) -> "Published":
        self._monitor = self._client.monitor().__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.echo("the end")
        while (command := self._monitor.next_command()["command"]) != "ECHO the end":
            # Commands of the script itself follow as ones of their own.
            if command.startswith("LPUSH") and f'"task":"{COMPLETE[:12]}' in command:
                self.seen.append(_read(command))
        self._monitor.__exit__(None, None, None)


def _read(command: str) -> tuple[str, int]:
    submitter = command.partition('"submitter":"')[2].partition('"')[0]
    return submitter, int(command.partition('"priority":')[2][:1])


# Queues of others.


@pytest.fixture(scope="module")
def shop(
    site: FleetSite, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[subprocess.Popen[bytes]]:
    """A stock worker that reads the queue ``mine``."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop.py").write_text(SHOP.format(url=site.settings.redis_url))
    celery = Path(sys.executable).with_name("celery")
    argv = [celery, "-A", "shop", "worker", "-Q", "mine", "-P", "threads", "-l", "INFO"]
    log = folder / "worker.log"
    with log.open("wb") as output:
        worker = subprocess.Popen(argv, cwd=folder, stdout=output, stderr=output)
    try:
        eventually(lambda: "ready." in log.read_text(), within=PATIENCE)
        yield worker
    finally:
        end(worker)


def test_steps_of_a_users_own_reach_a_stock_worker(
    fleet: FleetSite, shop: subprocess.Popen[bytes]
):
    """From two publishers, and through the worker; each with and without a backlog."""
    others = client(fleet.settings)
    results = []
    for number in range(20):
        for app in (fleet.app, others):
            complete = app.modelserver_tasks[0]
            save = app.signature("save").set(queue="mine")
            # A stock worker does not know which queue is the model's.
            last = complete.s().set(queue="writer")
            steps = chain(complete.s(f"step {number}"), save, last)
            results.append(steps())
            direct = app.send_task("save", (f"direct {number}",), queue="mine")
            results.append(direct)
    assert all(result.get(timeout=PATIENCE) for result in results)
    others.backend.result_consumer.stop()
    others.close()
