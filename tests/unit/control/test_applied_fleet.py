"""A fleet as it stands in the store."""

import json
from pathlib import Path

import pytest

from modelserver.control.applied_fleet import compose, parse, sealed, spec_of
from modelserver.errors import ConfigurationError
from modelserver.fleet.file import Fleet
from modelserver.fleet.sections import (
    EngineSection,
    HostSection,
    ModelSection,
    RedisSection,
)
from modelserver.messaging.catalogue import Catalogue
from modelserver.policy.changes import changes
from modelserver.settings import Settings

TOKEN = "hf_secret"


def fleet(**model: object) -> Fleet:
    values = {"name": "m", "path": "/m", "engine": "sglang-cpu", **model}
    redis = RedisSection(url="redis://:password@h/1")
    return Fleet(models=(ModelSection(**values),), redis=redis)


def test_a_fleet_comes_back_as_it_was_applied(tmp_path: Path):
    applied = compose(fleet(extra_args=("--a",)), None, now=5.0)
    settings = Settings(fleet(), tmp_path / "fleet.toml", tmp_path, "h")
    again = parse(applied.text, settings)
    assert (again.version, again.at, again.by) == (1, 5.0, applied.by)
    assert not changes(again.spec(), applied.spec())
    assert again.fleet.redis == settings.fleet.redis


def test_keys_that_the_version_before_refuses_are_there_only_where_they_say_something():
    plain = json.loads(compose(fleet(), None, now=5.0).text)
    new = {"priority", "schedule", "itl_seconds", "max_running"}
    assert not new & set(plain["models"][0])
    assert "time_zone" not in plain["rules"]
    ranked = json.loads(compose(fleet(priority=3), None, now=5.0).text)
    assert ranked["models"][0]["priority"] == 3


def test_arguments_that_files_may_not_have_any_more_stay_in_force(tmp_path: Path):
    applied = compose(fleet(extra_args=("--port", "1")), None, now=5.0)
    assert parse(applied.text, Settings(fleet(), tmp_path / "f", tmp_path, "h"))


def test_each_version_is_one_more():
    first = compose(fleet(), None, now=5.0)
    assert compose(fleet(), first, now=6.0).version == 2


def test_no_secret_is_in_it():
    text = compose(fleet(environment={"HF_TOKEN": TOKEN}), None, now=5.0).text
    assert TOKEN not in text
    assert "password" not in text
    assert "HF_TOKEN" in text


def test_another_value_of_a_secret_is_a_change_and_the_same_is_none():
    first = compose(fleet(environment={"HF_TOKEN": TOKEN}), None, now=5.0)
    same, other = (
        spec_of(sealed(fleet(environment={"HF_TOKEN": value}), first.salt))
        for value in (TOKEN, "another")
    )
    assert not changes(first.spec(), same)
    (line,) = changes(first.spec(), other).lines()
    assert line == "model m: restarts m-0 because environment.HF_TOKEN changed"


def with_pin(**own: object) -> Fleet:
    pin = EngineSection(model="m", host="h", **own)
    return fleet().model_copy(update={"engines": (pin,)})


def test_what_one_engine_has_of_its_own_restarts_it_and_is_no_less_secret():
    first = compose(with_pin(environment={"A": TOKEN}), None, now=5.0)
    assert TOKEN not in first.text
    same = spec_of(sealed(with_pin(environment={"A": TOKEN}), first.salt))
    assert not changes(first.spec(), same)
    more = with_pin(environment={"A": "b"}, extra_args=("-x",))
    (line,) = changes(first.spec(), spec_of(sealed(more, first.salt))).lines()
    assert line == (
        'engine m-0: restarts because extra_args changed from [] to ["-x"], '
        "environment.A changed"
    )


def test_a_fleet_without_new_keys_can_be_read_by_the_version_before():
    plain = json.loads(compose(with_pin(), None, now=5.0).text)
    assert not {"extra_args", "environment"} & set(plain["engines"][0])
    hosts = (HostSection(name="a"), HostSection(name="b", gpus=()))
    listed = fleet().model_copy(update={"hosts": hosts})
    sections = json.loads(compose(listed, None, now=5.0).text)["hosts"]
    assert sections == [{"name": "a"}, {"name": "b", "gpus": []}]


def test_a_client_reads_the_models_out_of_it():
    applied = compose(fleet(context_length=64), None, now=5.0)
    entry = Catalogue.read(json.loads(applied.text)).entry("m")
    assert entry
    assert entry.context_length == 64


def test_a_key_of_a_newer_version_names_the_remedy(tmp_path: Path):
    values = json.loads(compose(fleet(), None, now=5.0).text)
    values["models"][0]["telepathy"] = True
    settings = Settings(fleet(), tmp_path / "fleet.toml", tmp_path, "h")
    with pytest.raises(ConfigurationError, match="upgrade this host") as raised:
        parse(json.dumps(values), settings)
    assert "telepathy" in str(raised.value)
