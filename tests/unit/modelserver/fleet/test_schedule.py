"""Ranks and schedules in the fleet file."""

import json
from typing import Any

import pytest

from modelserver.control.applied_fleet import compose, spec_of
from modelserver.control.applying import difference
from modelserver.errors import ConfigurationError
from modelserver.fleet.file import Fleet, make_fleet
from modelserver.policy.changes import changes

WINDOW = {"from": "8:00", "to": "18:00", "days": "mon-fri", "min_engines": 4}
ZONE = {"time_zone": "Europe/Berlin"}


def fleet(rules: dict[str, Any] = ZONE, **keys: Any) -> Fleet:
    model = {"name": "day", "path": "p", "engine": "sglang", "gpus": 1} | keys
    return make_fleet("fleet.toml", {"models": [model], "rules": rules})


def refusal(rules: dict[str, Any] = ZONE, **keys: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        fleet(rules, **keys)
    return str(caught.value)


def test_a_schedule_and_a_rank_become_plain_values():
    (spec,) = fleet(schedule=[WINDOW], max_engines=4, priority=10).specs()
    assert spec.priority == 10
    assert str(spec.schedule[0]) == "8:00-18:00 mon-fri Europe/Berlin: 4 engines"


def test_they_live_through_the_store():
    before = fleet(schedule=[WINDOW], max_engines=4, priority=10)
    applied = compose(before, None, 0.0)
    assert applied.fleet.specs() == before.specs()
    assert json.loads(applied.text)["models"][0]["schedule"] == [WINDOW]


def test_a_change_of_them_restarts_nothing():
    applied = compose(fleet(max_engines=4), None, 0.0)
    found = difference(applied, fleet(schedule=[WINDOW], max_engines=4, priority=1))
    assert not found.touched
    assert found.lines() == [
        "model day: priority changed from 0 to 1, schedule changed from [] to "
        '["8:00-18:00 mon-fri Europe/Berlin: 4 engines"] (at once)'
    ]
    zone = fleet({"time_zone": "UTC"}, max_engines=4)
    assert changes(spec_of(fleet(max_engines=4)), spec_of(zone)).lines() == [
        "rules.time_zone changed from Europe/Berlin to UTC (at once)"
    ]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"from": "8"}, '"8" is no time of the day'),
        ({"from": "24:00"}, 'from = "24:00" is the end of a day; write "0:00"'),
        ({"to": "8:00"}, 'from and to are both "8:00"'),
        ({"days": "mo-fr"}, '"mo-fr" names no days'),
        ({"min_engines": 5}, "min_engines 5, and max_engines is 4; raise that"),
        ({"min_engines": 0}, "greater than or equal to 1"),
        ({"frm": "8:00"}, 'frm: is not a key; did you mean "from"?'),
    ],
)
def test_a_schedule_with_a_mistake_is_told_what_is_wrong(
    wrong: dict[str, Any], said: str
):
    assert said in refusal(schedule=[WINDOW | wrong], max_engines=4)


def test_a_schedule_needs_a_time_zone():
    text = refusal({}, schedule=[WINDOW], max_engines=4)
    assert 'set time_zone in [rules], for example "Europe/Berlin"' in text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Europe/Berln", '; did you mean "Europe/Berlin"?'),
        ("../secret", "write one like Europe/Berlin"),
        ("Europe", "is no time zone"),
    ],
)
def test_a_time_zone_must_be_known(name: str, said: str):
    assert said in refusal({"time_zone": name})


def test_a_rank_has_bounds_and_is_none_of_somebody_elses_model():
    assert "less than or equal to 100" in refusal(priority=101)
    text = refusal(engine="external", gpus=0, path="", priority=1)
    assert 'engine "external" gets no GPUs; leave priority and schedule out' in text
