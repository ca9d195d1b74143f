"""Records of engines, for the next launcher."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.host.process import Identity
from launcher.host.records import SCHEMA, Record, Records
from modelserver.values import EngineSpec

RECORD = Record(
    spec=EngineSpec("org/m-0", "org/m", "h1", gpus=(0, 1), port=8001),
    incarnation=4,
    process=Identity(123, 1700000000.25, "abc"),
    port=8001,
    gpus=(0, 1),
    log_offset=17,
    started_at=1700000000.0,
)


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    records = Records(tmp_path / "engines")
    assert records.read_all() == ()
    records.write(RECORD)
    records.write(replace(RECORD, ready=True))
    assert records.read_all() == (replace(RECORD, ready=True),)
    records.remove("org/m-0")
    records.remove("org/m-0")
    assert records.read_all() == ()


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "{}", "[]", '{"spec": {"gpus": []}}'),
        '{"spec": {"id": "m-0", "model": "m", "host": "h", "environment": null}}',
    ],
)
def test_damaged_record_is_dropped_and_the_others_stay(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    records = Records(tmp_path)
    records.write(RECORD)
    damaged = tmp_path / "broken.json"
    damaged.write_text(text)
    with caplog.at_level(logging.WARNING):
        assert records.read_all() == (RECORD,)
    assert "broken.json is damaged" in caplog.text
    assert not damaged.exists()


def test_a_record_that_the_disk_does_not_give_is_left_and_hides_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = Records(tmp_path)
    records.write(RECORD)
    unreadable = tmp_path / "m-0.json"
    unreadable.mkdir()
    assert records.read_all() == records.read_all() == (RECORD,)
    assert unreadable.exists()
    assert caplog.text.count("m-0.json cannot be read") == 1


def test_what_a_newer_launcher_wrote_of_a_start_is_kept(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.write(RECORD)
    (path,) = tmp_path.glob("*.json")
    newer = {**json.loads(path.read_text()), "colour": "blue"}
    path.write_text(json.dumps(newer))
    assert records.read_all() == (RECORD,)
    records.write(replace(RECORD, ready=True))
    assert json.loads(path.read_text()) == {**newer, "ready": True}
    another = replace(RECORD, process=replace(RECORD.process, mark="new"))
    records.write(another)
    assert "colour" not in json.loads(path.read_text())


def test_a_record_of_a_newer_form_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = Records(tmp_path)
    newer = tmp_path / "m-0.json"
    newer.write_text(json.dumps({"schema": SCHEMA + 1, "engine": {"id": "m-0"}}))
    assert records.read_all() == records.read_all() == ()
    assert newer.exists()
    assert caplog.text.count("is of a newer modelserver") == 1


def test_a_copy_of_a_record_is_no_second_engine(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a backup or a synchronised folder leaves it; it may be of an earlier start."""
    records = Records(tmp_path)
    records.write(RECORD)
    (file,) = tmp_path.iterdir()
    shutil.copy(file, tmp_path / "a copy.json")
    assert records.read_all() == (RECORD,)
    assert f"a copy.json is a copy of that of engine {RECORD.spec.id}" in caplog.text
