"""What the environment lays over the fleet file."""

from pathlib import Path

import pytest

from modelserver.errors import ConfigurationError
from modelserver.fleet.file import Fleet, make_fleet
from modelserver.settings import load

FILED = {"redis": {"url": "redis://near", "prefix": "x:"}}
MODELS = '[{"name": "m", "engine": "external"}]'


def fleet_of(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Fleet:
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    return make_fleet("fleet.toml", FILED)


def test_a_key_is_laid_over_its_section(monkeypatch: pytest.MonkeyPatch):
    given = {
        "MODELSERVER_REDIS_MAX_CONNECTIONS": "128",
        "modelserver_rules_show_prompts": "1",
    }
    fleet = fleet_of(monkeypatch, **given)
    assert fleet.redis.max_connections == 128
    assert fleet.redis.url == "redis://near"
    assert fleet.rules.show_prompts is True


def test_what_is_no_text_is_json(monkeypatch: pytest.MonkeyPatch):
    given = {
        "MODELSERVER_ALERTS_COMMAND": '["tell", "me"]',
        "MODELSERVER_MODELS": MODELS,
    }
    fleet = fleet_of(monkeypatch, **given)
    assert fleet.alerts.command == ("tell", "me")
    assert [model.name for model in fleet.models] == ["m"]


def test_a_key_wins_over_its_whole_section(monkeypatch: pytest.MonkeyPatch):
    given = {"MODELSERVER_REDIS": '{"url": "redis://far", "prefix": "y:"}'}
    fleet = fleet_of(monkeypatch, MODELSERVER_REDIS_PREFIX="z:", **given)
    assert (fleet.redis.url, fleet.redis.prefix) == ("redis://far", "z:")


def test_they_count_without_a_fleet_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("MODELSERVER_REDIS_URL", "redis://far:1")
    settings = load({"MODELSERVER_HOME": str(tmp_path)}, cwd=tmp_path)
    assert settings.redis_url == "redis://far:1"


@pytest.mark.parametrize("name", ["MODELSERVER_ENGINES_HOME", "MODELSERVER_HOST"])
def test_other_variables_of_ours_are_no_keys(
    monkeypatch: pytest.MonkeyPatch, name: str
):
    assert fleet_of(monkeypatch, **{name: "/shared"}) == make_fleet("", FILED)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("MODELSERVER_RULES_HANG_SECOND", "9", 'did you mean "hang_seconds"?'),
        (
            "MODELSERVER_RULES_HANG_SECONDS",
            "soon",
            "rules.hang_seconds: Input should be",
        ),
        ("MODELSERVER_ALERTS_COMMAND", "tell me", "alerts.command: Input should be"),
        ("MODELSERVER_MODELS", "[", "models: Input should be"),
    ],
)
def test_a_wrong_variable_is_refused_by_its_key(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, told: str
):
    with pytest.raises(ConfigurationError) as refused:
        fleet_of(monkeypatch, **{name: text})
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text", "key"),
    [
        ("MODELSERVER_REDIS_URL", "localhost:6379", "redis.url"),
        ("modelserver_rules_hang_seconds", "soon", "rules.hang_seconds"),
        ("MODELSERVER_REDIS", '{"url": "localhost"}', "redis.url"),
        ("MODELSERVER_MODELS", "[{}]", "models[0].name"),
        ("MODELSERVER_RULES_HANG_SECOND", "9", "rules.hang_second"),
    ],
)
def test_the_variable_is_named_and_not_the_file_that_has_no_such_mistake(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, key: str
):
    with pytest.raises(ConfigurationError) as refused:
        fleet_of(monkeypatch, **{name: text})
    said = str(refused.value)
    assert said.startswith(f"the environment is not valid\n  {key}: ")
    assert said.endswith(f"; {name} says so")


def test_mistakes_of_both_are_told_apart(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MODELSERVER_REDIS_URL", "localhost")
    with pytest.raises(ConfigurationError) as refused:
        make_fleet("fleet.toml", {"redis": {"prefx": "x"}})
    head, *lines = str(refused.value).splitlines()
    assert head == "fleet.toml: the fleet file is not valid"
    assert [line.endswith("MODELSERVER_REDIS_URL says so") for line in lines] == [
        line.startswith("  redis.url: ") for line in lines
    ]
    assert len(lines) == 2
