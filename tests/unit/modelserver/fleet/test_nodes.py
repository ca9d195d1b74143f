"""Engines that take several hosts, in the fleet file."""

import json
from typing import Any

import pytest

from modelserver.control.applied_fleet import compose, spec_of
from modelserver.errors import ConfigurationError
from modelserver.fleet.file import Fleet, make_fleet
from modelserver.policy.changes import changes

A, B = {"name": "a", "address": "10.0.0.7"}, {"name": "b", "address": "10.0.0.8"}


def fleet(listed: Any = (A, B), pins: Any = (), **keys: Any) -> Fleet:
    model = {"name": "big", "path": "p", "engine": "sglang", "gpus": 4, "nodes": 2}
    sections = {"models": [model | keys], "hosts": list(listed), "engines": list(pins)}
    return make_fleet("fleet.toml", sections)


def test_nodes_and_addresses_live_through_the_store():
    before = fleet()
    applied = compose(before, None, 0.0)
    assert applied.fleet.specs() == before.specs()
    assert applied.fleet.addresses == {"a": "10.0.0.7", "b": "10.0.0.8"}


def test_a_version_that_does_not_know_them_can_read_a_fleet_without_them():
    applied = compose(fleet([{"name": "a"}], nodes=1), None, 0.0)
    values = json.loads(applied.text)
    assert "nodes" not in values["models"][0]
    assert values["hosts"] == [{"name": "a"}]


def test_other_nodes_restart_the_engines_and_another_address_does_not():
    before = spec_of(fleet())
    wider = changes(before, spec_of(fleet(nodes=1)))
    assert "nodes changed from 2 to 1" in str(wider.lines())
    assert wider.touched == {"big"}
    found = changes(before, spec_of(fleet([A, B | {"address": "10.0.0.9"}])))
    assert "b address=10.0.0.9" in str(found.lines())
    assert not found.touched


COMMAND = {"engine": "command", "command": ["serve"], "gpus": 0}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"gpus": 3}, "gpus 3 cannot be shared out evenly among nodes 2"),
        ({"engine": "vllm-cpu", "gpus": 0}, '"vllm-cpu" is on one host; leave nodes'),
        ({"engine": "external", "gpus": 0}, '"external" is on one host; leave nodes'),
        ({"data_parallel": 2}, "data_parallel is for engines on one host"),
        ({"share_gpu": True, "gpu_memory_gib": 9}, "shares no GPU; leave share_gpu"),
        ({"max_engines": 2}, "do not come and go with the load; give min_engines"),
        ({"min_engines": 0}, "do not come and go with the load; give min_engines"),
        (COMMAND, "its command has no {node} or no {meeting}, and nodes is above 1"),
        ({"nodes": 4}, "has nodes = 4, and its hosts are fewer; list them"),
        ({"listed": ()}, "has nodes = 2, and its hosts are fewer; list them"),
        ({"hosts": ["a"]}, "has nodes = 2, and its hosts are fewer; list them"),
        ({"listed": [A, {"name": "b"}]}, 'host "b" has no address at which its nodes'),
        ({"listed": [A | {"address": "10.0.0"}]}, '"10.0.0" is no IP address, such as'),
        ({"listed": [A | {"address": "::"}]}, ":: is the address of no host"),
        (
            {"pins": [{"model": "big", "host": "a", "gpus": [0, 1]}]},
            "takes several hosts, and control chooses its GPUs; leave its gpus out",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(keys: dict[str, Any], said: str):
    with pytest.raises(ConfigurationError) as caught:
        fleet(**keys)
    assert said in str(caught.value)
