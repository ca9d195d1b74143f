"""Names that models and hosts may have, and numbers that are none."""

import math
from pathlib import Path

import pytest

from modelserver.errors import ConfigurationError
from modelserver.fleet.file import make_fleet
from modelserver.fleet.names import RESERVED_NAMES
from modelserver.settings import load
from modelserver.store.keys import Keys


def fleet_of(*names: str) -> None:
    models = [
        {"name": name, "engine": "command", "command": ["true"]} for name in names
    ]
    make_fleet("fleet.toml", {"models": models})


def test_every_key_of_our_own_is_reserved():
    keys = Keys("")
    own = {
        getattr(keys, name)
        for name, value in vars(Keys).items()
        if isinstance(value, property)
    }
    # No model has a colon in its name.
    assert {key for key in own if ":" not in key} <= RESERVED_NAMES


@pytest.mark.parametrize(
    "name",
    [
        *sorted(RESERVED_NAMES),
        "celery-task-meta-1",
        "x.reply.celery.pidbox",
        "control\x06\x163",
        "a\nb",
        "a:b",
        "a/../b",
        "a//b",
        "a/",
        "_kombu.binding.x",
        "",
        "模型",
        "a b",
        "a" * 129,
    ],
)
def test_a_model_is_not_named_like_a_key_or_no_file(name: str):
    with pytest.raises(ConfigurationError):
        fleet_of(name)


def test_the_refusal_says_which_names_are_taken():
    with pytest.raises(ConfigurationError, match="taken are: alerts, answers, "):
        fleet_of("workers")


def test_models_do_not_share_a_log():
    with pytest.raises(ConfigurationError, match="would share their log files"):
        fleet_of("a/b", "a_b")


@pytest.mark.parametrize("name", ["qwen3-8b", "Qwen/Qwen3-8B", "control-2", "m.v1_x"])
def test_usual_names_are_taken(name: str):
    fleet_of(name)


@pytest.mark.parametrize("name", ["gpu 1", "a/b", "../a", "a\nb", "", "-a", "worker@a"])
def test_a_host_is_not_named_like_no_folder_and_no_worker(name: str, tmp_path: Path):
    with pytest.raises(ConfigurationError):
        make_fleet("fleet.toml", {"hosts": [{"name": name}]})
    model = {"name": "m", "engine": "command", "command": ["true"]}
    fleet = {"models": [model], "engines": [{"model": "m", "host": name}]}
    if name:
        with pytest.raises(ConfigurationError, match="can be no host's name"):
            make_fleet("fleet.toml", fleet)
        with pytest.raises(ConfigurationError, match="MODELSERVER_HOST: "):
            load({"MODELSERVER_HOST": name}, cwd=tmp_path)


@pytest.mark.parametrize("number", [math.inf, math.nan])
def test_a_number_of_seconds_is_finite(number: float):
    with pytest.raises(ConfigurationError, match="lease_seconds"):
        make_fleet("fleet.toml", {"rules": {"lease_seconds": number}})
