"""A refused fleet is not read again at each look."""

from workers.engines.fleet_refusal import AGAIN_SECONDS, FleetRefusal


def test_a_refused_fleet_is_read_again_now_and_then():
    refusal = FleetRefusal()
    assert not refusal.stands("fleet 2", 0.0)
    assert refusal.note("fleet 2", "not signed", 0.0)
    assert refusal.stands("fleet 2", AGAIN_SECONDS - 0.1)
    assert not refusal.stands("fleet 3", 0.0)
    # The host may have its key by now.
    assert not refusal.stands("fleet 2", AGAIN_SECONDS)
    assert not refusal.note("fleet 2", "not signed", AGAIN_SECONDS)
    assert refusal.stands("fleet 2", AGAIN_SECONDS + 0.1)


def test_another_reason_is_news_and_a_taken_fleet_ends_it():
    refusal = FleetRefusal()
    assert refusal.note("fleet 2", "not signed", 0.0)
    assert refusal.note("fleet 2", "signed with another key", 20.0)
    refusal.forget()
    assert not refusal.stands("fleet 2", 20.0)
    assert refusal.note("fleet 2", "not signed", 21.0)
