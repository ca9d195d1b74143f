"""Logs as JSON: one object a line, with the values that a log call names."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelserver.errors import ConfigurationError
from modelserver.logs import JsonLines
from modelserver.settings import load
from tests.support.processes import ROOT

#: Logs as a worker does, by way of Celery's own set-up.
LOGGING = """
import logging
from tasks.app import app
app.log.setup(loglevel="INFO")
logging.getLogger("workers.pool").error("task=%s could not be run: %r", "t-1", "x")
"""


def line_of(text: str, *args: object, **more: object) -> dict[str, object]:
    made = {"msg": text, "args": args, "name": "launcher", **more}
    line = JsonLines().format(logging.makeLogRecord(made))
    assert "\n" not in line
    found: dict[str, object] = json.loads(line)
    return found


def test_values_that_are_named_are_fields():
    text = 'engine=%s READY -> %s incarnation=%d in %.1f %% reason="%s"'
    line = line_of(text, "m-0", "DRAINING", 3, 12.34, "slow:\ntwice")
    assert line["engine"] == "m-0"
    assert line["incarnation"] == 3
    assert line["reason"] == "slow:\ntwice"
    assert str(line["message"]).startswith("engine=m-0 READY -> DRAINING incarnation=3")
    assert line["logger"] == "launcher"
    assert str(line["at"]).endswith("+00:00")


def test_an_error_keeps_its_traceback_in_the_line():
    try:
        raise ValueError("a\nb")
    except ValueError:
        line = line_of("run=%s failed", "r", exc_info=sys.exc_info())
    assert "Traceback" in str(line["error"])
    assert line["run"] == "r"


def test_celerys_lines_give_their_task_and_no_answer():
    line = line_of("raised %(exc)s", data={"id": "t-1", "return_value": "a secret"})
    assert line["task"] == "t-1"
    assert "secret" not in str(line)


def test_named_values_do_not_hide_what_every_line_has():
    assert line_of("level=%s", "high", levelname="INFO")["level"] == "INFO"


def test_a_worker_logs_json_where_it_is_told_to(tmp_path: Path):
    told = {"MODELSERVER_LOG": "json", "MODELSERVER_HOME": str(tmp_path)}
    file = tmp_path / "fleet.toml"
    # Nothing listens there; a worker starts all the same.
    file.write_text('[redis]\nurl = "redis://127.0.0.1:1/0"\n')
    done = subprocess.run(
        [sys.executable, "-c", LOGGING],
        cwd=ROOT,
        env={**os.environ, **told, "MODELSERVER_FLEET": str(file)},
        capture_output=True,
        text=True,
        check=True,
    )
    line = json.loads(done.stderr.splitlines()[-1])
    assert (line["task"], line["level"]) == ("t-1", "ERROR")
    assert line["message"] == "task=t-1 could not be run: 'x'"


def test_another_form_of_logs_is_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="MODELSERVER_LOG is 'xml'"):
        load({"MODELSERVER_LOG": "xml"}, tmp_path)
