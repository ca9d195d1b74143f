"""What both ends of the wire agree on."""

import base64
import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from kombu.utils.json import dumps, loads

from modelserver.api import client
from modelserver.errors import UnknownModelError
from modelserver.fleet.file import Fleet
from modelserver.fleet.sections import RedisSection
from modelserver.messaging.catalogue import Catalogue
from modelserver.messaging.encoding import encode
from modelserver.messaging.wire import (
    COMPLETE,
    CONTROL_QUEUE,
    EMBED,
    STEER,
    CatalogueSource,
    Router,
    Vector,
    shared_settings,
)
from modelserver.settings import Settings

FLEET = Catalogue.read(
    {
        "models": [
            {"name": "writer", "kind": "completion"},
            {"name": "other", "kind": "completion"},
            {"name": "vectors", "kind": "embedding"},
        ],
        "defaults": {"completion": "writer"},
    }
)


def test_a_vector_is_a_list_of_floats_again_on_arrival():
    values = [0.5, -0.25, 1e-7, 3.0]
    arrived = loads(dumps({"result": [Vector.of(values)]}))["result"][0]
    assert arrived == pytest.approx(values)
    assert arrived[:2] == [0.5, -0.25]


def test_a_vector_is_float32_in_little_endian_as_engines_send_it():
    assert base64.b64decode(Vector.of([0.5, 2]).base64) == struct.pack("<2f", 0.5, 2)


def test_a_vector_is_several_times_shorter_than_its_decimals():
    values = [1 / (n + 3) for n in range(1000)]
    assert len(dumps(Vector.of(values))) < len(dumps(values)) / 3


@pytest.mark.parametrize(
    ("name", "kwargs", "route"),
    [
        (COMPLETE, None, {"queue": "writer"}),
        (COMPLETE, {"model": "other"}, {"queue": "other"}),
        (EMBED, {}, {"queue": "vectors"}),
        (STEER, {}, None),
        ("celery.chord_unlock", {"model": "other"}, None),
    ],
)
def test_a_request_goes_to_its_models_queue(
    name: str, kwargs: dict[str, Any] | None, route: dict[str, str] | None
):
    assert Router(lambda: FLEET)(name, (), kwargs, {}) == route


def test_a_request_to_an_unknown_model_is_not_routed():
    with pytest.raises(UnknownModelError, match='no model "nobody"'):
        Router(lambda: FLEET)(COMPLETE, (), {"model": "nobody"}, {})


def test_everything_but_requests_has_a_queue_of_its_own(tmp_path: Path):
    fleet = Fleet(redis=RedisSection(url="redis://h/1", results_url="redis://r/2"))
    settings = Settings(fleet, tmp_path / "fleet.toml", tmp_path, "h")
    shared = shared_settings(settings, CatalogueSource(settings))
    assert shared["task_default_queue"] == CONTROL_QUEUE
    assert shared["broker_url"] == "redis://h:6379/1"
    assert shared["result_backend"].endswith("+redis://r/2")
    assert shared["accept_content"] == ["json"]


def test_a_workers_results_read_as_kombus_own():
    meta = {
        "status": "SUCCESS",
        "result": [Vector.of([0.5, -1.0]), "text", None, 1.5, {"deep": [1, 2]}],
        "date_done": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "big": 2**70,
    }
    assert loads(encode(meta)) == loads(dumps(meta))
    assert encode(meta).startswith(b'{"status"')


def test_two_fleets_in_one_process_keep_their_tasks_apart(tmp_path: Path):
    section = Fleet(redis=RedisSection(url="redis://127.0.0.1:1/0"))
    one, two = (
        client(Settings(section, tmp_path / name / "fleet.toml", tmp_path, "h"))
        for name in ("one", "two")
    )
    for app, name in ((one, "one"), (two, "two")):
        bound = app.tasks[COMPLETE]
        assert bound.app is app
        assert bound.settings.fleet_file.parent.name == name
