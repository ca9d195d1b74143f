"""When a launcher tells people that control is silent."""

import pytest

from launcher.alarms import find_control_silence, follow_control


@pytest.mark.parametrize(
    ("looked_at", "steer_seconds", "is_silent"),
    [(100.0, 2.0, False), (70.1, 2.0, False), (69.9, 2.0, True), (60.0, 10.0, False)],
)
def test_control_is_silent_after_half_a_minute_and_five_looks(
    looked_at: float, steer_seconds: float, is_silent: bool
):
    trouble = find_control_silence(looked_at, steer_seconds, now=100.0)
    assert (trouble is not None) is is_silent


def test_a_step_of_the_servers_clock_is_no_silence():
    first = follow_control(None, 5000.0, now=10.0)
    assert follow_control(first, 5000.0, now=45.0) == first
    for steered_at in (5002.0, 9000.0, 1000.0):
        assert follow_control(first, steered_at, now=12.0).seen_at == 12.0


def test_what_is_told_names_the_remedy():
    trouble = find_control_silence(10.0, 2.0, now=100.0)
    assert trouble is not None
    assert "control has not looked at the fleet for 90 s" in trouble.text
    assert "modelserver beat" in trouble.text
