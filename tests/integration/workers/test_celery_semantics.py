"""What Celery promises of any task, in our pool and over our transport."""

import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import chord
from celery.exceptions import TaskRevokedError, TimeLimitExceeded, TimeoutError
from celery.result import AsyncResult

from modelserver.errors import RequestError
from modelserver.messaging.wire import CONTROL_QUEUE, STEER, STEER_QUEUE
from modelserver.store.fleet.control import read_steered
from tests.support.processes import ROOT, ValkeyProcess, end, eventually
from tests.support.workers import (
    PATIENCE,
    FleetSite,
    celery_command,
    open_fleet,
)
from workers.intake import CONTROL_ROOM

#: The module of the tasks of a user's own.
TASKS = "tests.support.celery_tasks"
#: A task in a thread, and one on the loop.
PLACES = pytest.mark.parametrize("place", ["", "loop_"])


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetSite]:
    """A worker with tasks of the user's own."""
    folder = tmp_path_factory.mktemp("fleet")
    valkey = ValkeyProcess(folder).start()
    log = folder / "worker.log"
    with open_fleet(folder, valkey.url) as site, log.open("wb") as stream:
        worker = subprocess.Popen(
            celery_command("worker", "-l", "INFO", "-I", TASKS),
            cwd=ROOT,
            env={**os.environ, **site.environment},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
        try:
            eventually(lambda: "ready." in log.read_text(), PATIENCE)
            yield site
        finally:
            end(worker)
    valkey.stop()


def send(fleet: FleetSite, task: str, *args: Any, **options: Any) -> AsyncResult:
    """Send a task to the control queue."""
    return fleet.app.send_task(task, args, **options)


@PLACES
def test_a_rejected_message_comes_back_marked(fleet: FleetSite, place: str):
    result = send(fleet, f"{place}reject_once")
    assert result.get(timeout=PATIENCE) == "delivered again"


@PLACES
def test_a_task_sees_its_eta(fleet: FleetSite, place: str):
    assert send(fleet, f"{place}eta_of", countdown=0.3).get(timeout=PATIENCE)
    assert send(fleet, f"{place}eta_of").get(timeout=PATIENCE) is None


@PLACES
def test_the_body_of_a_chord_knows_its_parent(fleet: FleetSite, place: str):
    task = fleet.app.signature(f"{place}parent_of")
    result = chord([task, task], app=fleet.app)(task)
    assert result.get(timeout=PATIENCE) in [part.id for part in result.parent.results]


def test_the_error_of_a_chords_part_goes_before_that_of_its_body(fleet: FleetSite):
    echo, read = (fleet.app.signature(name) for name in ("echo", "read"))
    for _ in range(5):
        parts = [echo.clone((1,)), read.clone(("/not/there",))]
        result = chord(parts, app=fleet.app)(echo)
        with pytest.raises(FileNotFoundError):
            result.get(timeout=PATIENCE)


@PLACES
def test_a_task_that_exits_fails_alone(fleet: FleetSite, place: str):
    with pytest.raises(RuntimeError, match=r"SystemExit\(3\)"):
        send(fleet, f"{place}leave").get(timeout=PATIENCE)
    assert send(fleet, "echo", "alive").get(timeout=PATIENCE) == "alive"


@PLACES
def test_a_message_whose_task_cannot_be_run_fails(fleet: FleetSite, place: str):
    """Its body is JSON, but not what Celery puts there."""
    result = AsyncResult(str(uuid.uuid4()), app=fleet.app)
    fleet.app.backend.on_task_call(None, result.id)
    with fleet.app.producer_or_acquire() as producer:
        producer.publish(
            [[], {}, 5],
            routing_key=CONTROL_QUEUE,
            headers={"id": result.id, "task": f"{place}eta_of", "lang": "py"},
        )
    with pytest.raises(RequestError, match="third part of its body"):
        result.get(timeout=PATIENCE)
    eventually(lambda: fleet.held() == 0, PATIENCE)
    active = fleet.app.control.inspect(timeout=30, limit=1).active
    eventually(lambda: [*active().values()] == [[]], PATIENCE)
    assert send(fleet, "echo", "alive").get(timeout=PATIENCE) == "alive"


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """A pipe that its readers wait for."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def release(pipe: Path, readers: list[AsyncResult]) -> None:
    """Let the readers end."""

    def ended() -> bool:
        os.close(os.open(pipe, os.O_RDWR))  # Does not wait, and wakes who does.
        return all(reader.ready() for reader in readers)

    eventually(ended, PATIENCE)


def test_a_soft_limit_does_not_lose_a_task_in_a_thread(fleet: FleetSite, pipe: Path):
    result = send(fleet, "read", str(pipe), soft_time_limit=0.1)
    with pytest.raises(TimeoutError):
        result.get(timeout=0.5)
    release(pipe, [result])
    assert result.get(timeout=PATIENCE) == ""
    eventually(lambda: fleet.held() == 0, PATIENCE)


def test_what_waits_for_a_thread_has_not_begun(fleet: FleetSite, pipe: Path):
    readers = [send(fleet, "read", str(pipe)) for _ in range(CONTROL_ROOM)]
    active = fleet.app.control.inspect(timeout=30, limit=1).active
    eventually(
        lambda: [len(found) for found in active().values()] == [CONTROL_ROOM], PATIENCE
    )
    expired = send(fleet, "echo", 1, expires=0.1)
    over = time.monotonic() + 0.3
    limited = send(fleet, "echo", 3, time_limit=0.3)
    revoked = send(fleet, "echo", 2)
    revoked.revoke()
    known = fleet.app.control.inspect(timeout=30, limit=1).revoked
    eventually(lambda: revoked.id in next(iter(known().values())))
    eventually(lambda: time.monotonic() > over)
    release(pipe, readers)
    for result in (expired, revoked):
        with pytest.raises(TaskRevokedError):
            result.get(timeout=PATIENCE)
    assert limited.get(timeout=PATIENCE) == 3


def test_control_goes_on_while_every_thread_is_stuck(fleet: FleetSite, pipe: Path):
    readers = [send(fleet, "read", str(pipe)) for _ in range(2 * CONTROL_ROOM)]
    eventually(lambda: fleet.held() == CONTROL_ROOM, PATIENCE)
    before, _ = read_steered(fleet.store)
    for _ in range(2):
        fleet.app.send_task(STEER, queue=STEER_QUEUE)
        eventually(lambda at=before: read_steered(fleet.store)[0] > at, PATIENCE)
        before, _ = read_steered(fleet.store)
    release(pipe, readers)


def test_a_hard_limit_is_told_while_every_thread_is_stuck(fleet: FleetSite, pipe: Path):
    readers = [
        send(fleet, "read", str(pipe), time_limit=0.2) for _ in range(CONTROL_ROOM)
    ]
    for reader in readers:
        with pytest.raises(TimeLimitExceeded):
            reader.get(timeout=PATIENCE)
    release(pipe, readers)
    assert send(fleet, "echo", "alive").get(timeout=PATIENCE) == "alive"
