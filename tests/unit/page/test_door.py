"""Sessions, tokens and counted passwords."""

import pytest

from modelserver.page.door import (
    MOST_ADDRESSES,
    MOST_TRIES,
    SESSION_SECONDS,
    TRY_SECONDS,
    Door,
)

NOW = 1_000_000.0


@pytest.fixture(scope="module")
def door() -> Door:
    return Door("right password")


def test_a_session_ends_by_itself_and_with_the_password(door: Door):
    session = door.open_session(NOW)
    assert door.is_open(session, NOW + SESSION_SECONDS - 1)
    assert not door.is_open(session, NOW + SESSION_SECONDS)
    assert Door("right password").is_open(session, NOW)
    assert not Door("other password").is_open(session, NOW)


@pytest.mark.parametrize("session", ["", ".", "a.b", "9999999999.x.", "\ud800.\ud800"])
def test_what_was_not_signed_is_no_session(door: Door, session: str):
    assert not door.is_open(session, NOW)


def test_nobody_makes_a_session_last_longer(door: Door):
    ends, rest = door.open_session(NOW).split(".", 1)
    assert not door.is_open(f"{int(ends) + 1}.{rest}", NOW)


def test_a_token_is_of_one_session_and_no_session_itself(door: Door):
    one, two = door.open_session(NOW), door.open_session(NOW)
    assert door.is_token(door.token(one), one)
    assert not door.is_token(door.token(one), two)
    assert not door.is_token("", one)


def test_an_address_that_guesses_has_to_wait_and_others_have_not():
    door = Door("right password")
    for _ in range(int(MOST_TRIES)):
        assert door.wait_seconds("a", NOW) == 0
        assert not door.is_right("wrong", "a", NOW)
    assert door.wait_seconds("a", NOW) == TRY_SECONDS
    assert door.wait_seconds("b", NOW) == 0
    assert door.wait_seconds("a", NOW + TRY_SECONDS) == 0


def test_a_right_password_costs_nothing():
    door = Door("right password")
    for _ in range(int(MOST_TRIES) + 1):
        assert door.is_right("right password", "a", NOW)
    assert door.wait_seconds("a", NOW) == 0


def test_many_addresses_take_no_more_memory_than_some():
    door = Door("right password")
    for n in range(MOST_ADDRESSES):
        door.is_right("wrong", f"a{n}", NOW)
    for n in range(int(MOST_TRIES)):
        door.is_right("wrong", f"b{n}", NOW)
    assert door.wait_seconds("yet another", NOW) > 0
    assert door.wait_seconds("c", NOW + MOST_TRIES * TRY_SECONDS + 1) == 0
