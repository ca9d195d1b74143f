"""When a real worker executes a request, and what ends one early."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import (
    SoftTimeLimitExceeded,
    TaskRevokedError,
    TimeLimitExceeded,
)
from celery.result import AsyncResult

from modelserver.errors import (
    DeadlineExceededError,
)
from modelserver.store.fleet.workers import read_backlog
from tests.engine.openai_api import answer_text
from tests.support.processes import ValkeyProcess, eventually
from tests.support.shared_fleet import block_writer
from tests.support.workers import PATIENCE, FleetSite, answers, open_fleet


def test_a_request_with_a_countdown_is_parked_and_not_held(fleet: FleetSite):
    began = time.monotonic()
    result = fleet.complete.apply_async(("later",), countdown=2)
    eventually(lambda: fleet.parked() == 1)
    assert fleet.held() == 0
    assert read_backlog(fleet.store, "writer") == 0
    assert result.get(PATIENCE) == answer_text("later")
    assert time.monotonic() - began >= 2


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/Berlin"])
def test_times_without_a_zone_are_utc_wherever_the_worker_is(
    tmp_path: Path, valkey: ValkeyProcess, zone: str
):
    with open_fleet(tmp_path, valkey.url) as site:
        site.engine("writer-0")
        site.zone = zone
        site.worker()
        now = datetime.now(UTC).replace(tzinfo=None)
        options: dict[str, dict[str, Any]] = {
            "due": {"eta": now + timedelta(seconds=1)},
            "overdue": {"eta": now - timedelta(hours=1)},
            "in time": {"expires": (now + timedelta(minutes=1)).isoformat()},
            "local": {"expires": 60, "countdown": 1},
        }
        results = {
            text: site.complete.apply_async((text,), **each)
            for text, each in options.items()
        }
        past = (now - timedelta(minutes=1)).isoformat()
        late = site.complete.apply_async(("late",), expires=past)
        for text, result in results.items():
            assert result.get(PATIENCE) == answer_text(text)
        with pytest.raises(TaskRevokedError, match="expired"):
            late.get(PATIENCE)


def test_priority_0_goes_before_9(fleet: FleetSite):
    engine = block_writer(fleet, limit=1)
    first = fleet.complete.delay("in the way")
    eventually(lambda: fleet.in_flight("writer-0") == 1, PATIENCE)
    late = fleet.send(["nine", "nine too"], priority=9)
    middle = fleet.send(["four"], priority=4)
    soon = fleet.send(["zero"], priority=0)
    engine.fault()
    answers([first, *late, *middle, *soon])
    order = [text for text in engine.stats()["executed"] if text in PRIORITY_ORDER]
    assert order == PRIORITY_ORDER


PRIORITY_ORDER = ["in the way", "zero", "four", "nine", "nine too"]


def test_an_expired_request_is_not_executed(fleet: FleetSite):
    engine = block_writer(fleet, limit=1)
    first = fleet.complete.delay("long before")
    eventually(lambda: fleet.in_flight("writer-0") == 1, PATIENCE)
    began = time.monotonic()
    result = fleet.complete.apply_async(("expired",), expires=0.3)
    eventually(lambda: time.monotonic() > began + 0.4)
    engine.fault()
    with pytest.raises(TaskRevokedError, match="expired"):
        result.get(PATIENCE)
    assert first.get(PATIENCE)
    assert "expired" not in engine.stats()["executed"]


# Ending a request early.


def revoke(fleet: FleetSite, result: AsyncResult, **options: Any) -> None:
    name = fleet.workers[0].name
    fleet.app.control.revoke(
        result.id, destination=[name], reply=True, timeout=10, limit=1, **options
    )


def test_a_request_revoked_before_its_start_is_not_executed(fleet: FleetSite):
    engine = block_writer(fleet, limit=1)
    first = fleet.complete.delay("before the revoked")
    eventually(lambda: fleet.in_flight("writer-0") == 1, PATIENCE)
    result = fleet.complete.delay("revoked")
    revoke(fleet, result)
    engine.fault()
    with pytest.raises(TaskRevokedError, match="revoked"):
        result.get(PATIENCE)
    assert first.get(PATIENCE)
    assert "revoked" not in engine.stats()["executed"]


def test_revoking_a_running_request_ends_it_on_the_engine(fleet: FleetSite):
    engine = block_writer(fleet, limit=4)
    result = fleet.complete.delay("to be ended")
    eventually(lambda: fleet.in_flight("writer-0") == 1, PATIENCE)
    revoke(fleet, result, terminate=True)
    with pytest.raises(TaskRevokedError, match="terminated"):
        result.get(PATIENCE)
    eventually(lambda: fleet.in_flight("writer-0") == 0, PATIENCE)
    engine.fault()
    eventually(lambda: fleet.held() == 0, PATIENCE)
    assert "to be ended" not in engine.stats()["executed"]


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        ({"soft_time_limit": 0.3}, SoftTimeLimitExceeded),
        ({"time_limit": 0.3}, TimeLimitExceeded),
    ],
)
def test_a_time_limit_ends_a_request_on_the_engine(
    fleet: FleetSite, limits: dict[str, float], error: type[Exception]
):
    engine = block_writer(fleet, limit=4)
    result = fleet.complete.apply_async(("limited",), **limits)
    with pytest.raises(error):
        result.get(PATIENCE)
    eventually(lambda: fleet.in_flight("writer-0") == 0, PATIENCE)
    eventually(lambda: fleet.held() == 0, PATIENCE)
    assert "limited" not in engine.stats()["executed"]


def test_a_deadline_ends_a_request_in_flight(fleet: FleetSite):
    block_writer(fleet, limit=4)
    result = fleet.complete.delay("due", deadline=0.5)
    with pytest.raises(DeadlineExceededError, match="no answer from writer before"):
        result.get(PATIENCE)
    eventually(lambda: fleet.in_flight("writer-0") == 0, PATIENCE)


def test_a_deadline_ends_the_retries_of_a_failing_engine(fleet: FleetSite):
    fleet.engines["writer-0"].fault(status=500)
    result = fleet.complete.delay("due", deadline=0.5)
    with pytest.raises(DeadlineExceededError):
        result.get(PATIENCE)


def test_a_deadline_that_passed_in_the_queue_is_not_executed(fleet: FleetSite):
    engine = block_writer(fleet, limit=1)
    first = fleet.complete.delay("before the late")
    eventually(lambda: fleet.in_flight("writer-0") == 1, PATIENCE)
    began = time.monotonic()
    result = fleet.complete.delay("too late", deadline=0.3)
    eventually(lambda: time.monotonic() > began + 0.4)
    engine.fault()
    with pytest.raises(DeadlineExceededError):
        result.get(PATIENCE)
    assert first.get(PATIENCE)
    assert "too late" not in engine.stats()["executed"]
