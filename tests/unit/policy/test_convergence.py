"""Whether a fleet has become what was applied, and in words what is missing."""

from dataclasses import replace

from modelserver.inventory import Host
from modelserver.policy.changes import FleetSpec
from modelserver.policy.convergence import FleetView, OpenEnd, open_ends
from modelserver.values import (
    EngineReport,
    EngineSpec,
    EngineState,
    Kind,
    ModelSpec,
    Wish,
)

MODEL = ModelSpec("m", Kind.COMPLETION, "/m", "sglang")
FLEET = FleetSpec((MODEL,))
WELL = EngineReport("m-0", "m", "a", EngineState.READY, 1)
SETTLED = FleetView(
    (Host("a", fleet=2),), {"m-0": WELL}, {"m-0": Wish(EngineSpec("m-0", "m", "a"))}
)


def ends(scene: FleetView) -> list[str]:
    return [each.what for each in open_ends(FLEET, 2, ["m"], scene)]


def reported(**values: object) -> FleetView:
    return replace(SETTLED, engines={"m-0": replace(WELL, **values)})  # type: ignore[arg-type]


def test_a_fleet_that_is_as_it_was_applied_has_no_open_ends() -> None:
    assert ends(SETTLED) == []


def test_a_host_that_goes_by_an_older_version_is_waited_for() -> None:
    late = replace(SETTLED, hosts=(Host("a", fleet=1),))
    assert ends(late) == ["host a still goes by version 1"]


def test_an_engine_without_a_place_is_waited_for_and_why_is_said() -> None:
    nowhere = replace(SETTLED, wishes={})
    assert ends(nowhere) == ["m-0 has no place yet"]
    why = replace(nowhere, waiting={"m-0": "needs 1 free GPU"})
    assert ends(why) == ["m-0 has no place yet: needs 1 free GPU"]


def test_an_engine_that_its_host_has_not_taken_up_is_waited_for() -> None:
    said = ["m-0 has not been taken up by host a yet"]
    assert ends(replace(SETTLED, engines={})) == said
    assert ends(reported(host="b")) == said


def test_an_engine_that_does_not_serve_is_waited_for() -> None:
    assert ends(reported(state=EngineState.STARTING)) == ["m-0 is STARTING"]


def test_waiting_for_a_fatal_engine_changes_nothing() -> None:
    dead = reported(state=EngineState.FATAL, reason="out of memory")
    (end,) = open_ends(FLEET, 2, ["m"], dead)
    assert end == OpenEnd("m-0 is FATAL: out of memory", hopeless=True)


def test_an_engine_that_has_to_be_restarted_is_waited_for() -> None:
    assert ends(reported(stale="path")) == ["m-0 is still to be restarted: path"]


def test_an_engine_that_is_to_go_is_waited_for_while_its_host_lives() -> None:
    old = EngineReport("m-1", "m", "a", EngineState.DRAINING, 1)
    more = replace(SETTLED, engines={"m-0": WELL, "m-1": old})
    assert ends(more) == ["m-1 is still DRAINING"]
    away = replace(more, engines={"m-0": WELL, "m-1": replace(old, host="gone")})
    assert ends(away) == []


def test_an_engine_that_control_may_keep_is_not_waited_for() -> None:
    more = EngineReport("m-1", "m", "a", EngineState.READY, 1)
    scene = replace(SETTLED, engines={"m-0": WELL, "m-1": more})
    assert ends(scene) == ["m-1 is still READY"]
    elastic = FleetSpec((replace(MODEL, max_engines=2),))
    assert open_ends(elastic, 2, ["m"], scene) == ()


def changed(engines: int, failed: int, relaunch: int = 0) -> list[OpenEnd]:
    """What is missing of a model whose first engines failed under its new section."""
    model = ModelSpec("m", Kind.COMPLETION, "/m", "sglang", min_engines=engines)
    spec = FleetSpec((replace(model, max_engines=engines),))
    names = [f"m-{n}" for n in range(engines)]
    wishes = {n: Wish(EngineSpec(n, "m", "a"), relaunch=relaunch) for n in names}
    fatal, ready = EngineState.FATAL, EngineState.READY
    reports = {
        name: EngineReport(name, "m", "a", fatal, 2)
        if number < failed
        else EngineReport(name, "m", "a", ready, 1, stale="gpus changed")
        for number, name in enumerate(names)
    }
    view = FleetView((Host("a", fleet=2),), reports, wishes)
    return list(open_ends(spec, 2, frozenset("m"), view))


def test_a_restart_that_waits_for_an_engine_that_failed_for_good_never_comes():
    assert [end.hopeless for end in changed(2, failed=1)] == [True, True]
    # Of eight, two may be away: another one is still tried.
    assert [end.hopeless for end in changed(8, failed=1)].count(False) == 7
    assert all(end.hopeless for end in changed(8, failed=2))


def test_a_failed_engine_that_is_to_be_tried_again_holds_up_no_restart_for_good():
    assert not all(end.hopeless for end in changed(2, failed=1, relaunch=2))
