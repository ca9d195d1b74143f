"""Events for whoever looks on, and deadlines that nobody could meet."""

import threading
import time
from collections.abc import Iterator

import pytest
from celery import chain
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult

from modelserver.errors import DeadlineExceededError, RequestError
from modelserver.store.fleet.workers import read_backlog
from modelserver.store.messages.expired import drop_expired
from tests.engine.openai_api import answer_text
from tests.support.processes import ValkeyProcess, eventually
from tests.support.workers import PATIENCE, FleetSite, answers, open_fleet


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetSite]:
    """A worker with an engine for one of the fleet's two models."""
    folder = tmp_path_factory.mktemp("fleet")
    valkey = ValkeyProcess(folder).start()
    with open_fleet(folder, valkey.url) as site:
        site.engine("writer-0")
        site.worker()
        yield site
    valkey.stop()


class Heard:
    """The task events of a fleet, from now on."""

    def __init__(self, fleet: FleetSite) -> None:
        self.events: list[dict[str, object]] = []
        self._connection = fleet.app.connection_for_read()
        self._receiver = fleet.app.events.Receiver(
            self._connection, handlers={"*": self.events.append}
        )
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        self._receiver.capture(limit=None, timeout=PATIENCE, wakeup=True)

    def of(self, task: str) -> list[str]:
        """The types of one task's events, in order."""
        return [str(each["type"]) for each in self.events if each.get("uuid") == task]

    def close(self) -> None:
        """Hear no more."""
        self._receiver.should_stop = True
        self._thread.join(PATIENCE)
        self._connection.release()


def test_a_request_shows_itself_in_events_without_its_words(fleet: FleetSite):
    heard = Heard(fleet)
    try:
        eventually(lambda: heard.events, PATIENCE)
        done = fleet.complete.delay("a secret prompt")
        assert done.get(timeout=PATIENCE) == answer_text("a secret prompt")
        whole = ["task-received", "task-started", "task-succeeded"]
        eventually(lambda: heard.of(done.id) == whole, PATIENCE)
    finally:
        heard.close()
    assert "secret" not in repr(heard.events)


def test_a_step_shows_its_model_and_not_the_answer_before_it(fleet: FleetSite):
    heard = Heard(fleet)
    try:
        eventually(lambda: heard.events, PATIENCE)
        steps = chain(fleet.complete.s("a secret prompt"), fleet.complete.s())()
        ids = (steps.parent.id, steps.id)
        assert steps.get(timeout=PATIENCE)
        eventually(
            lambda: all("task-succeeded" in heard.of(id) for id in ids), PATIENCE
        )
    finally:
        heard.close()
    assert "secret" not in repr(heard.events)
    shown = [e["kwargs"] for e in heard.events if e["type"] == "task-received"]
    assert shown == ["{'model': 'writer'}"] * 2


def test_requests_that_met_their_deadline_without_an_engine_wait_no_longer(
    fleet: FleetSite,
):
    """Those that a program sent and those of another, beside one that still waits."""
    lasting = fleet.embed.delay("text", deadline=3600.0)
    assert drop_expired(fleet.store, ["vectors"]) == 0
    late = [
        fleet.embed.apply_async(
            (f"text {place}",),
            {"deadline": 1.0},
            headers={"submitter": ("a", "b")[place % 2]},
        )
        for place in range(6)
    ]
    for each in late:
        with pytest.raises(DeadlineExceededError):
            each.get(timeout=PATIENCE)
    eventually(
        lambda: (
            drop_expired(fleet.store, ["vectors"]) == 0
            and read_backlog(fleet.store, "vectors") == 1
        ),
        PATIENCE,
    )
    another = fleet.embed.delay("text", deadline=1.0)
    with pytest.raises(DeadlineExceededError):
        another.get(timeout=PATIENCE)
    eventually(lambda: drop_expired(fleet.store, ["vectors"]) == 1, PATIENCE)
    assert read_backlog(fleet.store, "vectors") == 1
    assert not lasting.ready()
    queue = fleet.store.keys.queue("vectors")[0]
    assert fleet.store.client.delete(queue, fleet.store.keys.deadlines) == 2


def test_a_deadline_holds_while_no_engine_can_take_the_request(fleet: FleetSite):
    waiting = fleet.embed.delay("text", deadline=1.0)
    with pytest.raises(DeadlineExceededError, match="before the request's deadline"):
        waiting.get(timeout=PATIENCE)
    assert read_backlog(fleet.store, "vectors") == 1
    fleet.engine("vectors-0", model="vectors")
    eventually(lambda: read_backlog(fleet.store, "vectors") == 0, PATIENCE)
    assert fleet.engines["vectors-0"].stats()["received"] == 0
    eventually(
        lambda: fleet.store.client.zcard(fleet.store.keys.deadlines) == 0, PATIENCE
    )


def test_an_answered_request_leaves_no_deadline_behind(fleet: FleetSite):
    done = fleet.complete.delay("in time", deadline=30.0)
    assert done.get(timeout=PATIENCE) == answer_text("in time")
    eventually(
        lambda: fleet.store.client.zcard(fleet.store.keys.deadlines) == 0, PATIENCE
    )


def test_a_deadline_from_the_start_does_not_count_the_wait(fleet: FleetSite):
    later = fleet.complete.apply_async(
        ("patient",), {"deadline": 1.0, "deadline_from": "start"}, countdown=2
    )
    assert later.get(timeout=PATIENCE) == answer_text("patient")


def test_a_deadline_from_elsewhere_is_refused_at_once(fleet: FleetSite):
    with pytest.raises(RequestError, match="deadline_from must be"):
        fleet.complete.delay("x", deadline=1.0, deadline_from="dinner")


@pytest.fixture
def full(fleet: FleetSite) -> Iterator[FleetSite]:
    """The writer's engine with all its places taken and requests at hand for more."""
    fleet.engines["writer-0"].fault(hang=True)
    busy = fleet.send([f"busy {place}" for place in range(64)])
    eventually(lambda: fleet.in_flight("writer-0") == 64, PATIENCE)
    yield fleet
    fleet.engines["writer-0"].fault()
    assert len(answers(busy)) == 64


def at_hand(full: FleetSite) -> AsyncResult | None:
    """A request that the worker holds and that is about to expire.

    None where a busy machine had it expire before.
    """
    late = full.complete.apply_async(("late",), expires=0.5)

    def seen() -> str:
        return "held" if full.held() == 65 else "over" if late.ready() else ""

    return late if eventually(seen, PATIENCE) == "held" else None


def test_what_expires_while_it_is_at_hand_is_not_executed(full: FleetSite):
    late = eventually(lambda: at_hand(full), PATIENCE)
    over = time.monotonic() + 0.7
    eventually(lambda: time.monotonic() > over, PATIENCE)
    full.engines["writer-0"].fault()
    with pytest.raises(TaskRevokedError):
        late.get(timeout=PATIENCE)
    assert "late" not in full.engines["writer-0"].stats()["executed"]


def test_what_is_revoked_while_it_is_at_hand_is_not_executed(full: FleetSite):
    unwanted = full.complete.delay("unwanted")
    eventually(lambda: full.held() == 65, PATIENCE)
    full.app.control.revoke(unwanted.id, reply=True, timeout=PATIENCE, limit=1)
    full.engines["writer-0"].fault()
    with pytest.raises(TaskRevokedError):
        unwanted.get(timeout=PATIENCE)
    assert "unwanted" not in full.engines["writer-0"].stats()["executed"]
