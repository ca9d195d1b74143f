"""Requests that are revoked, expire or are cancelled, by hundreds."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from celery import chain
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult

from modelserver.store.batch import SUBMITTER
from modelserver.store.fleet.workers import read_backlog
from tests.engine.openai_api import answer_text
from tests.support.processes import ROOT, ValkeyProcess, eventually
from tests.support.workers import OTHER_MODEL, PATIENCE, FleetSite, answers, open_fleet


@pytest.fixture
def fleet(tmp_path: Path, valkey: ValkeyProcess) -> Iterator[FleetSite]:
    with open_fleet(tmp_path, valkey.url, OTHER_MODEL) as site:
        yield site


def assert_revoked(results: Sequence[AsyncResult], match: str) -> None:
    for result in results:
        with pytest.raises(TaskRevokedError, match=match):
            result.get(PATIENCE)


def cancel(fleet: FleetSite, *arguments: str) -> str:
    """What ``modelserver cancel`` says."""
    return subprocess.run(
        [sys.executable, "-m", "modelserver.cli", "cancel", *arguments],
        cwd=ROOT,
        env={**os.environ, **fleet.environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    ).stdout


def test_a_worker_that_starts_later_knows_what_was_revoked(fleet: FleetSite):
    unwanted = fleet.send([f"no {i}" for i in range(300)])
    wanted = fleet.send(["yes"])
    last = chain(fleet.complete.s("no chain"), fleet.complete.s()).apply_async()
    noise = [f"{i:032x}" for i in range(60_000)]  # More than Celery remembers.
    fleet.app.control.revoke([*(each.id for each in unwanted[1:]), last.parent.id])
    unwanted[0].revoke()
    fleet.app.control.revoke(noise)
    engine = fleet.engine("writer-0")
    worker = fleet.worker()
    assert answers(wanted) == [answer_text("yes")]
    assert_revoked([*unwanted, last.parent, last], "revoked")
    assert engine.stats()["executed"] == {"yes": 1}
    eventually(lambda: fleet.held() == 0, PATIENCE)
    assert worker.said().count("revoked") < 30
    revoked = fleet.store.keys.revoked
    eventually(lambda: fleet.store.client.zcard(revoked) == len(noise), PATIENCE)


def test_many_expired_requests_hold_nobody_up(fleet: FleetSite):
    expired = fleet.send([f"old {i}" for i in range(1500)], expires=0.2)
    wanted = fleet.send(["new"])
    over_at = time.monotonic() + 0.3
    eventually(lambda: time.monotonic() > over_at)
    engine = fleet.engine("writer-0")
    fleet.worker()
    assert answers(wanted) == [answer_text("new")]
    assert_revoked(expired, "expired")
    assert engine.stats()["executed"] == {"new": 1}


def test_a_submitters_requests_are_cancelled_and_no_others(fleet: FleetSite):
    mine = fleet.send([f"m{i}" for i in range(3)], headers={SUBMITTER: "me"})
    theirs = fleet.send([f"t{i}" for i in range(300)], headers={SUBMITTER: "them"})
    more = fleet.send(["m3"], headers={SUBMITTER: "me"}, priority=9)
    later = fleet.send(["t300"], headers={SUBMITTER: "them"}, countdown=3600)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        cancel(fleet, "--model", "wrtier")
    assert 'nothing waits for "wrtier", which is no model' in refused.value.stderr
    assert "301 waiting" in cancel(fleet, "--submitter", "them")
    assert read_backlog(fleet.store, "writer") == 4
    assert_revoked([*theirs, *later], "cancelled")
    fleet.engine("writer-0")
    fleet.worker()
    assert answers(mine + more) == [answer_text(f"m{i}") for i in range(4)]


def test_a_models_requests_are_cancelled_those_that_run_too(fleet: FleetSite):
    engine = fleet.engine("writer-0", limit=4)
    fleet.engine("other-0", model="other")
    engine.fault(hang=True)
    fleet.worker()
    requests = fleet.send([f"w{i}" for i in range(200)])
    delayed = fleet.send(["later"], countdown=3600)
    eventually(lambda: fleet.in_flight("writer-0") == 4, PATIENCE)
    others = fleet.send(["other"], kwargs={"model": "other"})
    said = cancel(fleet, "--model", "writer", "--running")
    assert "waiting requests cancelled" in said
    assert_revoked([*requests, *delayed], "cancelled|terminated|revoked")
    assert answers(others) == [answer_text("other")]
    eventually(lambda: fleet.in_flight("writer-0") == 0, PATIENCE)
    eventually(lambda: fleet.held() + fleet.parked() == 0, PATIENCE)
