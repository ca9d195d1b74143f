"""A snapshot as JSON says everything that the snapshot says."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from types import MappingProxyType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from modelserver.inventory import Host
from modelserver.measured import Sample
from modelserver.policy.decide import consider
from modelserver.policy.health.memory import EngineMemory, Health, HealthMemory
from modelserver.policy.rebalance.state import RebalanceMemory as Moves
from modelserver.policy.replay import (
    RulesOf,
    actions_to_json,
    look_from_json,
    look_to_json,
    snapshot_from_json,
    snapshot_to_json,
)
from modelserver.policy.snapshot import Snapshot
from modelserver.values import EngineSpec, Kind, ModelSpec, Outcome, Wish

RULES = RulesOf(hang_seconds=60, relaunch_pause_seconds=10)
PLAIN = {
    int: some.integers(-(2**53), 2**53),
    float: some.floats(allow_nan=False, allow_infinity=False),
    str: some.text(max_size=5),
    bool: some.booleans(),
    object: some.none(),
    Any: some.none() | some.booleans() | some.lists(some.integers(0, 9), max_size=2),
}


def values(kind: Any) -> some.SearchStrategy[Any]:
    """Any values of a type that a snapshot holds."""
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        parts = {each.name: values(hints[each.name]) for each in fields(kind)}
        return some.builds(kind, **parts)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple and arguments[1:] == (...,):
        return some.lists(values(arguments[0]), max_size=2).map(tuple)
    if origin is tuple:
        return some.tuples(*map(values, arguments))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return some.dictionaries(PLAIN[str], values(arguments[1]), max_size=2)
    if origin in (Union, UnionType):
        inner = next(each for each in arguments if each is not type(None))
        return some.none() | values(inner)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return some.sampled_from(list(kind))
    return PLAIN[kind]


def consistent(snapshot: Snapshot, memory: HealthMemory | None) -> Snapshot:
    """As a store gives it: samples by their engine, no environments."""
    return replace(
        snapshot,
        specs=tuple(replace(spec, environment={}) for spec in snapshot.specs),
        samples={
            engine: tuple(replace(sample, engine=engine) for sample in samples)
            for engine, samples in snapshot.samples.items()
        },
        memory=memory,
    )


memories = some.none() | some.builds(
    HealthMemory, some.dictionaries(PLAIN[str], values(EngineMemory), max_size=2)
)
snapshots = some.builds(consistent, values(Snapshot), memories)


@settings(max_examples=60, deadline=None)
@given(snapshots)
def test_a_snapshot_comes_back_as_it_was(snapshot):
    assert snapshot_from_json(snapshot_to_json(snapshot)) == snapshot


@settings(max_examples=30, deadline=None)
@given(values(Moves))
def test_what_is_remembered_of_moves_comes_back(moves):
    snapshot = Snapshot((), (), (), {}, {}, {}, moves=moves)
    assert snapshot_from_json(snapshot_to_json(snapshot)) == snapshot


def test_the_version_before_reads_what_was_withdrawn_as_cancelled():
    withdrawn = Sample("m-0", 1, 5.0, 0.0, 0, 0, 0, 0, 0, Outcome.WITHDRAWN)
    snapshot = Snapshot((), (), (), {}, {}, {}, samples={"m-0": (withdrawn,)})
    kept = orjson.loads(snapshot_to_json(snapshot))["samples"]["m-0"][0]
    assert kept[8:] == ["cancelled", False, None, None, "withdrawn"]
    assert snapshot_from_json(snapshot_to_json(snapshot)) == snapshot


def test_what_an_earlier_version_kept_as_withdrawn_is_read():
    kept = [1, 5.0, 0.0, 0, 0, 0, 0, 0, "cancelled", False, "withdrawn"]
    content = orjson.loads(snapshot_to_json(Snapshot((), (), (), {}, {}, {})))
    content["samples"] = {"m-0": [kept]}
    (read,) = snapshot_from_json(orjson.dumps(content).decode()).samples["m-0"]
    assert read.outcome is Outcome.WITHDRAWN


def test_the_values_of_an_environment_are_left_out():
    secret = ModelSpec(
        "m", Kind.COMPLETION, "/m", "sglang", environment={"TOKEN": "geheim"}
    )
    assert b"geheim" not in snapshot_to_json(Snapshot((secret,), (), (), {}, {}, {}))


def test_what_a_newer_version_adds_is_ignored_and_what_an_older_lacks_is_empty():
    text = b'{"specs":[],"pins":[],"hosts":[{"name":"a","coffee":3}],"engines":{},'
    text += b'"desired":{},"loads":{},"news":1}'
    assert snapshot_from_json(text) == Snapshot((), (), (Host("a"),), {}, {}, {})


def test_any_mapping_will_do_for_what_is_kept():
    read_only = MappingProxyType({"m": 3})
    kept = snapshot_to_json(Snapshot((), (), (), {}, {}, {}, queues=read_only))
    assert snapshot_from_json(kept).queues == {"m": 3}


def test_a_value_that_is_none_of_a_snapshot_is_refused():
    strange: Any = {"m": object()}
    with pytest.raises(TypeError):
        snapshot_to_json(Snapshot((), (), (), {}, strange, {}))


def test_a_decision_can_be_made_again_from_what_was_kept():
    model = ModelSpec("m", Kind.COMPLETION, "/m", "command")
    wish = Wish(EngineSpec("old-0", "old", "a"))
    snapshot = Snapshot(
        (model,),
        (),
        (Host("a"),),
        {},
        {"old-0": wish},
        {},
        memory=HealthMemory({"old-0": EngineMemory(1, health=Health.SUSPECT)}),
        moves=Moves(),
    )
    decision = consider(snapshot, RULES, 100.0)
    kept = look_to_json(snapshot, RULES, 100.0, decision.actions)
    look = look_from_json(kept)
    assert look.again() == decision
    assert look.actions == actions_to_json(decision.actions)
    assert [each["action"] for each in look.actions] == ["want", "drop"]
