"""Which wishes a launcher obeys, and which engines it ends."""

from dataclasses import replace
from typing import Any

import pytest

from launcher.store_link import StoreView
from launcher.wishes import (
    RETURN_SECONDS,
    WISHES_GRACE_SECONDS,
    WishReader,
    find_contradiction,
)
from modelserver.values import EngineSpec, NodePlace, Wish

HERE = {"m-0": Wish(EngineSpec("m-0", "m", "h1"))}
VIEW = StoreView(steered_at=1.0, data="one", read_at=0.0)


def test_a_wish_is_obeyed_however_often_the_engine_moves():
    reader = WishReader()
    for move in range(50):
        now = float(move)
        here = replace(VIEW, wishes=HERE, reported=frozenset({"m-0"}))
        assert not reader.note(here, now)
        assert reader.find_unwanted(here, {"m-0": True}, now) == {}
        away = replace(VIEW, elsewhere=frozenset({"m-0"}))
        assert not reader.note(away, now)
        moved = {"m-0": "moved to another host", "m-1": "wanted no longer"}
        assert reader.find_unwanted(away, {"m-0": True, "m-1": True}, now) == moved


def test_a_wish_that_is_gone_ends_its_engine_at_once():
    reader = WishReader()
    reader.note(replace(VIEW, wishes=HERE), 0.0)
    # Its report is gone as well: somebody removed it.
    reader.note(VIEW, 1.0)
    assert reader.find_unwanted(VIEW, {"m-0": True}, 1.0) == {"m-0": "wanted no longer"}


def test_engines_of_a_store_that_lost_its_data_are_kept_for_a_while_only():
    reader = WishReader()
    reader.note(VIEW, 0.0)
    empty = replace(VIEW, data="two", reported=frozenset({"m-0"}))
    assert reader.note(empty, 1.0)
    over = 1.0 + WISHES_GRACE_SECONDS
    for now in (1.0, over - 1):
        assert reader.find_unwanted(empty, {"m-0": True}, now) == {}
        assert reader.find_forgotten(empty, [], now) == set()
    assert not reader.note(empty, over)
    assert reader.find_unwanted(empty, {"m-0": True}, over) == {
        "m-0": "wanted no longer"
    }
    assert reader.find_forgotten(empty, [], over) == {"m-0"}


@pytest.mark.parametrize(("slept", "stepped"), [(0, 600), (600, 0), (600, -3600)])
def test_a_host_that_slept_was_silent_though_its_clock_stood_still(slept, stepped):
    before = replace(VIEW, read_at=100.0, clock_offset=1e9)
    after = replace(VIEW, read_at=101.0 + slept, clock_offset=1e9 + stepped)
    assert after.seconds_after(before) == pytest.approx(601)


def test_an_engine_goes_on_while_its_wish_cannot_be_read():
    reader = WishReader()
    view = replace(VIEW, unread=frozenset({"m-0"}), reported=frozenset({"m-0", "m-1"}))
    reader.note(view, 0.0)
    assert reader.find_unwanted(view, {"m-0": True}, 0.0) == {}
    assert reader.find_forgotten(view, [], 0.0) == {"m-1"}


def test_a_wish_for_another_host_counts_even_just_after_the_data_was_lost():
    reader = WishReader()
    reader.note(VIEW, 0.0)
    empty = replace(VIEW, data="two", elsewhere=frozenset({"m-0"}))
    reader.note(empty, 1.0)
    unwanted = reader.find_unwanted(empty, {"m-0": True, "m-1": True}, 1.0)
    assert unwanted == {"m-0": "moved to another host"}


def test_nothing_ends_before_control_has_ever_looked():
    reader = WishReader()
    fresh = replace(VIEW, steered_at=0.0)
    reader.note(fresh, 0.0)
    assert reader.find_unwanted(fresh, {"m-0": True}, 99.0) == {}


def test_an_engine_that_serves_stays_when_its_launcher_is_back():
    reader = WishReader()
    reader.expect_return(0.0)
    away = replace(VIEW, elsewhere=frozenset({"m-0", "m-1"}))
    engines = {"m-0": True, "m-1": False}
    moved = {"m-1": "moved to another host"}
    assert reader.find_unwanted(away, engines, 1.0) == moved
    taken = replace(away, serving_elsewhere=frozenset({"m-0"}))
    assert "m-0" in reader.find_unwanted(taken, engines, 1.0)
    # Control had its time to say so.
    assert "m-0" in reader.find_unwanted(away, engines, RETURN_SECONDS)


def contradiction(wish: Wish, *pins: EngineSpec) -> str:
    return find_contradiction(wish, {each.id: each for each in pins}, {}, {})


PIN = EngineSpec("m-0", "m", "h1", port=4000, url="http://10.0.0.7:8000")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, ""),
        ({"port": 4000, "url": PIN.url}, ""),
        ({"uuids": ("GPU-1",)}, ""),
        ({"port": "1; touch /tmp/x"}, "gives it no port '1; touch /tmp/x'"),
        ({"port": 4001}, "gives it no port 4001"),
        ({"url": "http://evil:80"}, "does not say that it listens at 'http://evil:80'"),
        ({"model": "n"}, "m-0 is no engine of model n"),
        ({"id": "m-x"}, "m-x is no engine of model m"),
        ({"extra_args": ("--trust-remote-code",)}, "no such extra_args"),
        ({"environment": {"MODELSERVER_REDIS_URL": ""}}, "or environment"),
        ({"followers": (NodePlace("h2"),)}, "places on 2 hosts, and nodes = 1"),
    ],
)
def test_a_wish_chooses_among_what_the_fleet_allows(changed: dict[str, Any], said: str):
    spec = replace(EngineSpec("m-0", "m", "h1"), **changed)
    assert said in contradiction(Wish(spec), PIN)
    assert bool(contradiction(Wish(spec), PIN)) == bool(said)


def test_arguments_of_a_pin_are_its_engines():
    pin = replace(PIN, extra_args=("--tp", "2"), environment={"A": "sealed"})
    wish = Wish(replace(pin, port=0, url=""))
    assert not contradiction(wish, pin)
    # Sealed anew by the next `apply`, before control has looked.
    assert not contradiction(wish, replace(pin, environment={"A": "x"}))
    assert contradiction(wish, PIN)


def test_without_a_pin_an_engine_has_no_place_of_its_own():
    assert contradiction(Wish(replace(PIN, port=0)))
    assert not contradiction(Wish(replace(PIN, port=0, url="")))
