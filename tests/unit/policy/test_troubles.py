"""Which troubles people are told of, and when."""

from dataclasses import replace

import pytest

from modelserver.inventory import GIB, Disk, Gpu, Host
from modelserver.policy.troubles import (
    CALM_SECONDS,
    FLAPS,
    REMEMBERED_SECONDS,
    NotedTrouble,
    Trouble,
    TroubleKind,
    find_troubles,
    follow_troubles,
    over,
)
from modelserver.values import EngineState
from tests.support.control import NOW, Scene


def told(scene: Scene, **more: object) -> dict[str, str]:
    """What is wrong in a scene, by its key."""
    usual = {"waiting": {}, "silent": (), "before": {}}
    found = find_troubles(scene.snapshot(), **{**usual, **more})
    return {each.key: each.text for each in found}


def put(scene: Scene, state: EngineState, *engines: str, **values: object) -> None:
    for name in engines:
        scene.engines[name] = replace(scene.engines[name], state=state, **values)


def test_a_sound_fleet_has_no_troubles():
    assert told(Scene()) == {}


def test_engines_of_a_model_that_are_fatal_are_told_as_one():
    scene = Scene(engines=6)
    names = [f"m-{place}" for place in range(5)]
    put(scene, EngineState.FATAL, *names, reason="no such model")
    assert told(scene) == {
        "fatal:m": "5 engines of m are FATAL (m-0, m-1, m-2 and 2 others); m-4 on host "
        "a: no such model; see `modelserver why m`"
    }


def test_an_engine_that_dies_is_a_trouble_until_it_serves():
    scene = Scene()
    put(scene, EngineState.BACKOFF, "m-1", reason="exit code 1", starts=3)
    before = {key: NotedTrouble(NOW) for key in told(scene)}
    assert list(before) == ["broken:m"]
    put(scene, EngineState.STARTING, "m-1", reason="", progress="loads")
    assert list(told(scene, before=before)) == ["broken:m"]
    assert told(scene) == {}
    put(scene, EngineState.READY, "m-1")
    assert told(scene, before=before) == {}


def test_the_engines_of_a_silent_host_are_told_by_their_host_alone():
    scene = Scene()
    put(scene, EngineState.FATAL, "m-0", "m-1")
    scene.hosts = (Host("b"),)
    assert list(told(scene, silent=["a"])) == ["host:a"]


def test_an_engine_that_is_wanted_no_longer_is_no_trouble():
    scene = Scene()
    put(scene, EngineState.FATAL, "m-0")
    del scene.wishes["m-0"]
    assert told(scene) == {}


def test_engines_without_a_place_are_told_by_their_model():
    waiting = {"m-0": "needs 2 GPUs", "m-1": "needs 2 GPUs", "n-0": "needs 1 GPU"}
    assert told(Scene(), waiting=waiting) == {
        "place:m": "m-0, m-1 have no place: needs 2 GPUs",
        "place:n": "n-0 has no place: needs 1 GPU",
    }


@pytest.mark.parametrize(
    ("values", "key", "text"),
    [
        ({"gpus": (Gpu(3, "GPU-3", fault="XID 79"),)}, "gpu:a", "gpu 3 (GPU-3)"),
        ({"disks": (Disk("/data", GIB, 100 * GIB),)}, "disk:a", "/data has 1 GiB of"),
        ({"clock_ahead_seconds": -3.4}, "clock:a", "3 s behind that of Redis"),
        ({"troubles": ("b fails; do c",)}, "launcher:a", "host a: b fails; see `mod"),
    ],
)
def test_what_a_host_reports_of_itself(values: dict[str, object], key: str, text: str):
    scene = Scene()
    scene.hosts = (Host("a", **values),)  # type: ignore[arg-type]
    found = told(scene)
    assert list(found) == [key]
    assert text in found[key]


@pytest.mark.parametrize(
    ("workers", "found"), [((), []), (("a",), []), (("b",), ["worker:a"])]
)
def test_a_host_whose_engines_serve_needs_a_worker(
    workers: tuple[str, ...], found: list[str]
):
    """Where no worker reports at all, nothing is known."""
    scene = Scene()
    seen = replace(scene.snapshot(), worker_hosts=workers)
    assert [each.key for each in find_troubles(seen, {}, (), {})] == found
    put(scene, EngineState.STARTING, *scene.engines)
    seen = replace(scene.snapshot(), worker_hosts=workers)
    assert list(find_troubles(seen, {}, (), {})) == []


def test_a_disk_with_room_and_a_clock_that_is_nearly_right_are_none():
    scene = Scene()
    disks = (Disk("/a", 6 * GIB, 100 * GIB), Disk("/b", 11 * GIB, 10_000 * GIB))
    scene.hosts = (Host("a", disks=disks, clock_ahead_seconds=1.4),)
    assert told(scene) == {}


def test_a_trouble_is_told_once_it_has_stood_for_the_time_of_its_kind():
    lost = Trouble(TroubleKind.HOST, "h2", "host h2 does not report")
    first = follow_troubles({}, [lost], NOW)
    assert first.due == ()
    assert follow_troubles(first.noted, [], NOW + 2).noted == {}
    later = follow_troubles(first.noted, [lost], NOW + 29)
    assert later.due == ()
    told_of = follow_troubles(later.noted, [lost], NOW + 30)
    assert told_of.due == (lost,)
    assert told_of.noted == {"host:h2": NotedTrouble(NOW, told=1, times=1)}
    assert told_of.standing == {"host:h2"}
    assert follow_troubles(told_of.noted, [], NOW + 32).standing == frozenset()


def test_a_trouble_that_comes_and_goes_is_told_a_few_times_and_then_stands():
    full = Trouble(TroubleKind.DISK, "h2", "a disk is nearly full")
    noted, stood, changes = {}, False, 0
    for look in range(1800):  # An hour, in which it is there for 20 s of 40.
        there = look % 20 < 10
        telling = follow_troubles(noted, [full] if there else [], NOW + 2 * look)
        noted = telling.noted
        stands = full.key in telling.standing and noted[full.key].told > 0
        changes += stands != stood
        stood = stands
    assert stood
    assert changes == 2 * FLAPS - 1
    calm = follow_troubles(noted, [], NOW + 3600)
    assert calm.standing
    later = follow_troubles(calm.noted, [], NOW + 3600 + CALM_SECONDS)
    assert not later.standing
    # After an hour of peace it is told as if it were new.
    at = NOW + 3600 + CALM_SECONDS + REMEMBERED_SECONDS
    assert follow_troubles(later.noted, [], at).noted == {}


def test_a_trouble_that_returns_has_to_stand_again_before_it_is_told():
    lost = Trouble(TroubleKind.HOST, "h2", "host h2 does not report")
    told_of = follow_troubles({lost.key: NotedTrouble(NOW)}, [lost], NOW + 30)
    over = follow_troubles(told_of.noted, [], NOW + 32)
    back = follow_troubles(over.noted, [lost], NOW + 34)
    assert back.due == ()
    assert follow_troubles(back.noted, [lost], NOW + 64).due == (lost,)


def test_a_clock_that_was_set_back_delays_nothing():
    lost = Trouble(TroubleKind.HOST, "a", "host a does not report")
    ahead = {lost.key: NotedTrouble(NOW + 3600)}
    noted = follow_troubles(ahead, [lost], NOW).noted
    seconds = TroubleKind.HOST.patience_seconds
    assert follow_troubles(noted, [lost], NOW + seconds).due == (lost,)


def test_a_trouble_is_told_again_when_it_has_doubled():
    def of(size: int) -> list[Trouble]:
        return [Trouble(TroubleKind.FATAL, "m", "engines are FATAL", size)]

    telling = follow_troubles({}, of(1), NOW)
    assert (len(telling.due), telling.grown) == (1, frozenset())
    for size, grown in ((1, False), (2, True), (3, False), (4, True), (159, True)):
        telling = follow_troubles(telling.noted, of(size), NOW)
        assert bool(telling.grown) is grown, size


@pytest.mark.parametrize("kind", TroubleKind)
def test_each_trouble_has_its_end(kind: TroubleKind):
    assert "{" not in over(kind, "x")
