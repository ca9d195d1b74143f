"""When a model needs engines by the clock: windows of the day in a time zone. Pure."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

#: The days of the week as a schedule names them, from 0.
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
#: The minutes of a day; as the end of a window, midnight.
DAY_MINUTES = 24 * 60

_TIME = re.compile(r"([01]?\d|2[0-4]):([0-5]\d)")


@dataclass(frozen=True, slots=True)
class ScheduledWindow:
    """A time of the day, on some days, in which a model has more engines."""

    #: Minutes after midnight at which it begins.
    start: int
    #: Minutes after midnight at which it ends: of the next day if not after ``start``.
    end: int
    #: The days on which it begins, 0 for Monday.
    days: tuple[int, ...]
    #: How many engines there are at least.
    min_engines: int
    #: The name of its time zone.
    zone: str

    def __str__(self) -> str:
        """ "8:00-18:00 mon-fri Europe/Berlin: 4 engines"."""
        plural = "s" * (self.min_engines != 1)
        when = f"{_clock(self.start)}-{_clock(self.end)} {_days_text(self.days)}"
        return f"{when} {self.zone}: {self.min_engines} engine{plural}"

    def spans(self, now: float) -> Iterator[tuple[float, float]]:
        """When it begins and ends around ``now``, in seconds since the epoch.

        A time that the clocks leave out is as much later; of one that comes twice, a
        window begins at the first and ends at the second.
        """
        zone = ZoneInfo(self.zone)
        today = datetime.fromtimestamp(now, zone).date()
        for offset in (-1, 0, 1):
            day = today + timedelta(days=offset)
            if day.weekday() not in self.days:
                continue
            over = self.end <= self.start or self.end == DAY_MINUTES
            last = day + timedelta(days=1) if over else day
            start = datetime.combine(day, _time(self.start), zone)
            end = datetime.combine(last, _time(self.end), zone)
            yield start.timestamp(), max(map(_at, (end, end.replace(fold=1))))

    def covers(self, now: float, lead_seconds: float = 0.0) -> bool:
        """Whether it is in force, or begins within these seconds."""
        return any(start - lead_seconds <= now < end for start, end in self.spans(now))


def find_window(
    windows: Iterable[ScheduledWindow], now: float, lead_seconds: float = 0.0
) -> ScheduledWindow | None:
    """The window in force, of several the one with the most engines; None if none is.

    >>> night = ScheduledWindow(22 * 60, 6 * 60, (4,), 2, "UTC")
    >>> friday_23_00 = 1_735_945_200
    >>> str(find_window([night], friday_23_00))
    '22:00-6:00 fri UTC: 2 engines'
    >>> find_window([night], friday_23_00 + 7 * 3600)
    """
    found = [each for each in windows if each.covers(now, lead_seconds)]
    return max(found, key=lambda each: each.min_engines, default=None)


def window_of(values: Mapping[str, Any], zone: str) -> ScheduledWindow:
    """A window from what the fleet file says of it. Raises ValueError.

    >>> file = {"from": "8:00", "to": "18:00", "days": "mon-fri", "min_engines": 4}
    >>> str(window_of(file, "Europe/Berlin"))
    '8:00-18:00 mon-fri Europe/Berlin: 4 engines'
    """
    start, end = minutes_of(values["from"]), minutes_of(values["to"])
    return ScheduledWindow(
        start, end, days_of(values["days"]), values["min_engines"], zone
    )


def windows_of(fleet: Mapping[str, Any]) -> dict[str, tuple[ScheduledWindow, ...]]:
    """The windows of each model, from a fleet as JSON."""
    zone = fleet.get("rules", {}).get("time_zone", "")
    return {
        model["name"]: tuple(window_of(each, zone) for each in model["schedule"])
        for model in fleet["models"]
        if model.get("schedule")
    }


def minutes_of(clock: str) -> int:
    """The minutes after midnight of "8:00" or "24:00". Raises ValueError."""
    match = _TIME.fullmatch(clock.strip())
    minutes = int(match[1]) * 60 + int(match[2]) if match else DAY_MINUTES + 1
    if minutes > DAY_MINUTES:
        raise ValueError(f'"{clock}" is no time of the day; write it like "8:00"')
    return minutes


def days_of(text: str) -> tuple[int, ...]:
    """The days of "mon-fri", "sat, sun", "fri-mon" or "daily". Raises ValueError.

    >>> days_of("fri-mon"), days_of("tue")
    ((0, 4, 5, 6), (1,))
    """
    if text.strip().lower() == "daily":
        return tuple(range(7))
    found: set[int] = set()
    for part in text.lower().split(","):
        first, dash, last = (each.strip() for each in part.partition("-"))
        if first not in DAYS or (dash and last not in DAYS):
            raise ValueError(
                f'"{part.strip()}" names no days; write "mon-fri", "sat, sun" or '
                '"daily"'
            )
        begin, end = DAYS.index(first), DAYS.index(last if dash else first)
        found |= {(begin + step) % 7 for step in range((end - begin) % 7 + 1)}
    return tuple(sorted(found))


def check_zone(name: str) -> str:
    """The name of a time zone, if this host knows it. Raises ValueError."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        close = difflib.get_close_matches(name, available_timezones(), n=1)
        meant = f'; did you mean "{close[0]}"?' if close else ""
        raise ValueError(
            f'"{name}" is no time zone{meant or "; write one like Europe/Berlin"}'
        ) from None
    return name


def _at(moment: datetime) -> float:
    return moment.timestamp()


def _time(minutes: int) -> time:
    return time(minutes // 60 % 24, minutes % 60)


def _clock(minutes: int) -> str:
    return f"{minutes // 60}:{minutes % 60:02}"


def _days_text(days: tuple[int, ...]) -> str:
    if len(days) == len(DAYS):
        return "daily"
    if len(days) > 2 and days == tuple(range(days[0], days[-1] + 1)):
        return f"{DAYS[days[0]]}-{DAYS[days[-1]]}"
    return ", ".join(DAYS[each] for each in days)
