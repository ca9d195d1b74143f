"""Windows of the day, with midnight, summer time and overlaps."""

from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from modelserver.schedules import (
    ScheduledWindow,
    days_of,
    find_window,
    minutes_of,
    window_of,
    windows_of,
)

BERLIN = "Europe/Berlin"
WORK = ScheduledWindow(8 * 60, 18 * 60, (0, 1, 2, 3, 4), 4, BERLIN)
NIGHT = ScheduledWindow(22 * 60, 6 * 60, (4,), 2, BERLIN)
HOUR = 3600.0


def at(text: str, zone: str = BERLIN, fold: int = 0) -> float:
    """Seconds since the epoch of a local time."""
    moment = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return moment.timestamp()


@pytest.mark.parametrize(
    ("moment", "inside"),
    [
        ("2025-01-06T07:59:59", False),
        ("2025-01-06T08:00", True),
        ("2025-01-06T17:59:59", True),
        ("2025-01-06T18:00", False),
        ("2025-01-05T12:00", False),  # A Sunday.
    ],
)
def test_a_window_holds_from_its_beginning_up_to_its_end(moment: str, inside: bool):
    assert WORK.covers(at(moment)) is inside


def test_over_midnight_the_day_is_that_of_the_beginning():
    assert NIGHT.covers(at("2025-01-03T23:00"))  # A Friday.
    assert NIGHT.covers(at("2025-01-04T05:59"))
    assert not NIGHT.covers(at("2025-01-04T06:00"))
    assert not NIGHT.covers(at("2025-01-04T23:00"))


def test_24_00_is_the_end_of_the_day():
    late = ScheduledWindow(18 * 60, 24 * 60, (0,), 1, BERLIN)
    assert late.covers(at("2025-01-06T23:59:59"))
    assert not late.covers(at("2025-01-07T00:00"))


def test_it_keeps_to_the_local_clock_in_summer_and_winter():
    for day in ("2025-01-06", "2025-07-07"):
        spans = dict(WORK.spans(at(f"{day}T12:00")))
        start = at(f"{day}T08:00")
        assert spans[start] - start == 10 * HOUR


def test_a_beginning_that_the_clocks_leave_out_is_an_hour_later():
    early = ScheduledWindow(2 * 60 + 30, 5 * 60, (6,), 1, BERLIN)
    spring = "2025-03-30T"
    assert not early.covers(at(f"{spring}03:29"))
    assert early.covers(at(f"{spring}03:30"))


def test_an_end_that_the_clocks_leave_out_is_an_hour_later():
    early = ScheduledWindow(60, 2 * 60 + 30, (6,), 1, BERLIN)
    assert early.covers(at("2025-03-30T03:29"))
    assert not early.covers(at("2025-03-30T03:30"))


def test_a_time_that_comes_twice_belongs_to_the_window_both_times():
    twice = ScheduledWindow(2 * 60 + 15, 2 * 60 + 45, (6,), 1, BERLIN)
    first, second = (at("2025-10-26T02:30", fold=fold) for fold in (0, 1))
    assert second - first == HOUR
    assert twice.covers(first)
    assert twice.covers(second)


def test_of_windows_that_overlap_the_one_with_most_engines_counts():
    more = replace(WORK, start=9 * 60, end=10 * 60, min_engines=6)
    assert find_window([WORK, more], at("2025-01-06T09:30")) == more
    assert find_window([WORK, more], at("2025-01-06T10:30")) == WORK
    assert find_window([WORK, more], at("2025-01-06T20:00")) is None


def test_it_is_near_within_the_lead():
    assert WORK.covers(at("2025-01-06T07:55"), lead_seconds=300)
    assert not WORK.covers(at("2025-01-06T07:54"), lead_seconds=300)


@pytest.mark.parametrize(
    ("days", "shown"),
    [
        ("mon-fri", "mon-fri"),
        ("daily", "daily"),
        ("sat, sun", "sat, sun"),
        ("fri-mon", "mon, fri, sat, sun"),
        ("tue", "tue"),
    ],
)
def test_days_are_shown_as_they_are_written(days: str, shown: str):
    file = {"from": "8:00", "to": "18:05", "days": days, "min_engines": 1}
    window = window_of(file, "UTC")
    assert str(window) == f"8:00-18:05 {shown} UTC: 1 engine"


@pytest.mark.parametrize("text", ["8", "24:01", "25:00", "8:60", ""])
def test_what_is_no_time_is_refused(text: str):
    with pytest.raises(ValueError, match='is no time of the day; write it like "8:00"'):
        minutes_of(text)


@pytest.mark.parametrize("text", ["mo-fr", "mon-", "", "workdays"])
def test_what_is_no_day_is_refused(text: str):
    with pytest.raises(ValueError, match="names no days"):
        days_of(text)


def test_the_windows_of_a_fleet_are_read_from_its_json():
    file = {"from": "8:00", "to": "18:00", "days": "mon-fri", "min_engines": 4}
    fleet = {
        "rules": {"time_zone": BERLIN},
        "models": [{"name": "day", "schedule": [file]}, {"name": "night"}],
    }
    assert windows_of(fleet) == {"day": (WORK,)}
