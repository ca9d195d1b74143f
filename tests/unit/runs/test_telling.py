"""What a run says in its log of what others cannot see."""

import logging
from pathlib import Path

import pytest

from modelserver.runs.telling import RunTeller
from modelserver.settings import load
from tests.support.launcher_resources import CLOSED
from tests.support.processes import eventually


def test_that_a_run_cannot_be_shown_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG, "modelserver.runs.telling")
    variables = {"MODELSERVER_REDIS_URL": CLOSED, "MODELSERVER_HOME": str(tmp_path)}
    teller = RunTeller(load(variables), "map-3", ("prompts", 1), lambda: (0, 0))
    eventually(lambda: len(caplog.records) >= 2)
    teller.end(False)
    levels = [each.levelno for each in caplog.records]
    assert levels == [logging.INFO, *[logging.DEBUG] * (len(levels) - 1)]
    assert "run map-3 is not shown to others: " in caplog.text
