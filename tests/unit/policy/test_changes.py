"""What a changed fleet means for engines that run."""

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelserver.policy.changes import (
    AT_ONCE,
    FieldChange,
    FleetSpec,
    changes,
    compare,
    restarts,
    sentence,
)
from modelserver.schedules import ScheduledWindow
from modelserver.values import EngineSpec, Kind, ModelSpec

M = ModelSpec("m", Kind.COMPLETION, "/m", "sglang", gpus=1, context_length=4096)
OTHER = ModelSpec("other", Kind.COMPLETION, "/o", "sglang-cpu")
PIN = EngineSpec("m-0", "m", "a", port=30000)

RESTARTING: list[tuple[str, Any, str]] = [
    ("context_length", 8192, "context_length changed from 4096 to 8192"),
    ("context_length", None, "context_length changed from 4096 to nothing"),
    ("path", "/n", "path changed from /m to /n"),
    ("engine", "vllm", "engine changed from sglang to vllm"),
    ("gpus", 2, "gpus changed from 1 to 2"),
    ("max_running", 8, "max_running changed from 64 to 8"),
    ("extra_args", ("--x",), 'extra_args changed from [] to ["--x"]'),
    ("environment", {"TOKEN": "f00"}, "environment.TOKEN was added"),
]
HARMLESS: list[tuple[str, Any, str]] = [
    ("min_engines", 3, "min_engines changed from 1 to 3"),
    ("drain_seconds", 5.0, "drain_seconds changed from 60.0 to 5.0"),
    ("sampling", {"temperature": 0}, 'sampling changed from {} to {"temperature": 0}'),
    ("fallback", "n", "fallback changed from nothing to n"),
    (
        "schedule",
        (ScheduledWindow(480, 1080, (0, 1, 2, 3, 4), 4, "UTC"),),
        'schedule changed from [] to ["8:00-18:00 mon-fri UTC: 4 engines"]',
    ),
]


@pytest.mark.parametrize(("field", "value", "said"), RESTARTING)
def test_what_an_engine_was_started_with_restarts_it(field: str, value: Any, said: str):
    found = restarts(M, replace(M, **{field: value}))
    assert sentence(found) == said


@pytest.mark.parametrize(("field", "value", "said"), HARMLESS)
def test_what_others_go_by_takes_effect_at_once(field: str, value: Any, said: str):
    changed = replace(M, **{field: value})
    assert restarts(M, changed) == ()
    assert sentence(compare(M, changed)) == said


def test_a_command_engine_has_its_limits_in_its_command():
    old = replace(M, engine="command", command=("serve",))
    assert restarts(old, replace(old, context_length=1024, max_running=1)) == ()
    assert restarts(old, replace(old, command=("serve", "--fast")))


def test_an_engine_of_somebody_else_is_never_restarted():
    old = replace(M, engine="external")
    assert restarts(old, replace(old, path="/x", context_length=1)) == ()


def test_values_of_an_environment_are_never_told():
    old = replace(M, environment={"TOKEN": "one", "GONE": "x"})
    new = replace(M, environment={"TOKEN": "two"})
    assert sentence(compare(old, new)) == (
        "environment.GONE was removed, environment.TOKEN changed"
    )


def test_long_values_are_cut():
    text = str(FieldChange("command", ["x" * 200], ["y"]))
    assert text.endswith('... to ["y"]')
    assert len(text) < 120


def test_long_lists_are_told_from_where_they_differ():
    change = FieldChange("command", ("a", "b", "c", "1"), ("a", "b", "c", "2"))
    assert str(change) == 'command changed from ["...", "1"] to ["...", "2"]'


def test_the_same_fleet_changes_nothing():
    fleet = FleetSpec((M, OTHER), (PIN,), {"rules.hang_seconds": 60.0})
    assert not changes(fleet, fleet)
    assert changes(fleet, fleet).lines() == []


def test_a_difference_in_words():
    old = FleetSpec((M, OTHER), (), {"rules.hang_seconds": 60.0, "hosts": []})
    new = FleetSpec(
        (
            replace(M, context_length=8192, min_engines=2, sampling={"n": 1}),
            ModelSpec("fresh", Kind.EMBEDDING, "/f", "sglang-cpu"),
        ),
        (),
        {"rules.hang_seconds": 90.0, "rules.steer_seconds": 1.0, "hosts": []},
    )
    found = changes(old, new)
    assert found.lines() == [
        "model m: starts m-1",
        "model m: restarts m-0 because context_length changed from 4096 to 8192",
        "model m: min_engines changed from 1 to 2, "
        'sampling changed from {} to {"n": 1} (at once)',
        "model fresh: added",
        "model fresh: starts fresh-0",
        "model other: removed",
        "model other: stops other-0",
        "rules.hang_seconds changed from 60.0 to 90.0 (at once)",
        "rules.steer_seconds changed from nothing to 1.0 "
        "(takes effect when beat is started)",
    ]
    assert found.summary() == "start 2, stop 1, restart 1 engines"
    assert found.removed == ("other",)
    assert found.touched == {"m", "fresh", "other"}


def test_a_pin_with_another_place_restarts_its_engine_alone():
    two = replace(M, min_engines=2)
    found = changes(
        FleetSpec((two,), (PIN,)), FleetSpec((two,), (replace(PIN, port=30001),))
    )
    assert found.lines() == [
        "engine m-0: restarts because port changed from 30000 to 30001"
    ]
    assert found.summary() == "restart 1 engine"


def test_an_engine_with_another_place_and_section_restarts_once():
    new = FleetSpec((replace(M, path="/n"),), (replace(PIN, port=1),))
    assert changes(FleetSpec((M,), (PIN,)), new).summary() == "restart 1 engine"


def test_changes_without_engines_touch_none():
    new = FleetSpec((replace(M, sampling={"n": 2}),))
    found = changes(FleetSpec((M,)), new)
    assert found.summary() == "no engine starts, stops or restarts"
    assert found.touched == frozenset()


def models() -> st.SearchStrategy[ModelSpec]:
    found = st.builds(
        replace,
        st.sampled_from([M, OTHER]),
        min_engines=st.integers(0, 3),
        max_engines=st.integers(1, 4),
        context_length=st.sampled_from([None, 64, 128]),
        max_running=st.sampled_from([1, 2]),
    )
    return found.filter(lambda model: model.min_engines <= model.max_engines)


def test_an_engine_that_control_may_keep_is_not_stopped() -> None:
    two, one = replace(M, min_engines=2, max_engines=2), replace(M, min_engines=1)
    (change,) = changes(FleetSpec((two,)), FleetSpec((one,))).models
    assert change.stop == ("m-1",)
    elastic = FleetSpec((replace(one, max_engines=2),))
    (change,) = changes(FleetSpec((two,)), elastic).models
    assert change.stop == ()


def test_engines_that_somebody_else_runs_are_asked_for_by_their_pins() -> None:
    foreign = replace(M, engine="external")
    assert FleetSpec((foreign,)).engines() == {}
    assert FleetSpec((foreign,), (PIN,)).engines() == {PIN.id: PIN}


def fleets() -> st.SearchStrategy[FleetSpec]:
    unique = st.lists(models(), max_size=2, unique_by=lambda model: model.name)
    return st.builds(FleetSpec, unique.map(tuple))


@given(fleets(), fleets())
def test_what_starts_and_stops_takes_one_fleet_to_the_other(
    old: FleetSpec, new: FleetSpec
):
    found = changes(old, new)
    engines = set(old.engines())
    for change in found.models:
        assert engines.issuperset(change.stop)
        assert engines.isdisjoint(change.start)
        assert engines.issuperset(change.restart)
        engines = engines - set(change.stop) | set(change.start)
    assert set(new.engines()) <= engines <= set(new.engines_allowed())
    back = changes(new, old)
    assert {c.name for c in back.models} == {c.name for c in found.models}


@given(models(), models())
def test_every_field_that_differs_is_told_once(old: ModelSpec, new: ModelSpec):
    differing = {
        each.name
        for each in fields(ModelSpec)
        if getattr(old, each.name) != getattr(new, each.name)
    }
    assert {each.name for each in compare(old, new)} == differing
    assert {each.name for each in restarts(old, new)} == differing - AT_ONCE
