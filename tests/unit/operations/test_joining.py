"""What is looked at of a host that is to be one of a fleet."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from modelserver.control.applied_fleet import Applied, compose
from modelserver.fleet.file import make_fleet
from modelserver.inventory import Host
from modelserver.operations.joining import (
    check_clock,
    check_gpus,
    check_name,
    check_room,
    find_models,
)

NO_GPUS = {"driver": "no GPUs: no driver", "gpus": []}
TWO_GPUS = {"driver": "570.1", "gpus": ["NVIDIA H100", "NVIDIA H100"]}


def applied(**sections: Any) -> Applied:
    return compose(make_fleet("a test", sections), None, now=0.0)


def model(name: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "engine": "command", "command": ["x", "{port}"], **keys}


@pytest.mark.parametrize(("ahead", "is_problem"), [(0.3, False), (-40.0, True)])
def test_a_clock_that_is_wrong_is_a_problem(ahead: float, is_problem: bool):
    assert check_clock("new", ahead).is_problem is is_problem


def test_two_machines_cannot_have_one_name():
    twin = [Host("new", pid=7)]
    assert check_name("new", applied(), twin, is_joined=False).is_problem
    assert not check_name("new", applied(), twin, is_joined=True).is_problem
    assert not check_name("other", applied(), twin, is_joined=False).is_problem


def test_a_fleet_that_names_its_hosts_has_no_others():
    fleet = applied(hosts=[{"name": "a"}])
    assert check_name("new", fleet, [], is_joined=False).is_problem
    assert not check_name("a", fleet, [], is_joined=False).is_problem


def test_a_host_without_gpus_is_of_use_only_to_models_that_need_none():
    fleet = applied(models=[model("big", gpus=2), model("small", hosts=["other"])])
    here = find_models(fleet, "new")
    assert [each.name for each in here] == ["big"]
    assert check_gpus(here, NO_GPUS).is_problem
    assert not check_gpus(here, TWO_GPUS).is_problem
    assert not check_gpus(find_models(fleet, "other"), NO_GPUS).is_problem


def test_engines_need_the_room_that_they_take_and_no_more(tmp_path: Path):
    home, free = tmp_path / "not" / "there", shutil.disk_usage(tmp_path).free
    assert not check_room(home, free // 2).is_problem
    full = check_room(home, free)
    assert full.is_problem
    assert str(tmp_path) in full.fact
