"""Beat says once that it cannot publish, however often it tries."""

import logging
from pathlib import Path

import pytest
from celery import Celery
from celery.beat import ScheduleEntry

from modelserver.control.scheduler import SteadyScheduler

NOBODY = "redis://127.0.0.1:1/0"


def scheduler(folder: Path) -> SteadyScheduler:
    app = Celery(broker=NOBODY)
    app.conf.task_publish_retry = False
    app.conf.broker_transport_options = {"max_retries": 0}
    return SteadyScheduler(app, schedule_filename=str(folder / "schedule"), lazy=True)


def entry(beat: SteadyScheduler, **options: str) -> ScheduleEntry:
    return ScheduleEntry("steer", "steer", schedule=2.0, options=options, app=beat.app)


def test_a_server_that_is_away_is_one_line_and_no_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    beat = scheduler(tmp_path)
    with beat.app.amqp.Producer(beat.app.connection_for_write()) as producer:
        for _ in range(3):
            beat.apply_entry(entry(beat), producer)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert caplog.messages[0].startswith("Redis away: steering waits (")
    assert caplog.records[0].exc_info is None


def test_a_fault_of_the_entry_shows_where_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    beat = scheduler(tmp_path)
    with beat.app.amqp.Producer(beat.app.connection_for_write()) as producer:
        beat.apply_entry(entry(beat, serializer="no such"), producer)
    assert caplog.records[0].exc_info
