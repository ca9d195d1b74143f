"""Which engines a launcher ends, for stores that forget and wishes that go."""

from dataclasses import replace

from launcher.store_link import StoreView
from launcher.wishes import RETURN_SECONDS, WISHES_GRACE_SECONDS, WishReader
from modelserver.values import EngineSpec, Wish

HERE = {"m-0": Wish(EngineSpec("m-0", "m", "h1"))}
VIEW = StoreView(steered=True, data="one", read_at=0.0)


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


def test_a_wish_for_another_host_counts_even_just_after_the_data_was_lost():
    reader = WishReader()
    reader.note(VIEW, 0.0)
    empty = replace(VIEW, data="two", elsewhere=frozenset({"m-0"}))
    reader.note(empty, 1.0)
    unwanted = reader.find_unwanted(empty, {"m-0": True, "m-1": True}, 1.0)
    assert unwanted == {"m-0": "moved to another host"}


def test_nothing_ends_before_control_has_ever_looked():
    reader = WishReader()
    fresh = replace(VIEW, steered=False)
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
