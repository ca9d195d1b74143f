"""What is said of a server that is away: its begin, a line a minute, its end."""

import logging

import pytest
from kombu import Connection

from modelserver.store.server.away_log import AwayLog

log = logging.getLogger("away")


def test_hours_of_tries_are_a_line_a_minute(caplog: pytest.LogCaptureFixture):
    away_log = AwayLog(log, "pulling")
    for tenth in range(36_000):
        away_log.away(OSError("refused"), 100 + tenth / 10)
    away_log.back(3700.0)
    away_log.back(3700.2)
    assert len(caplog.messages) == 61
    assert caplog.messages[0] == "Redis away: pulling waits (refused)"
    assert caplog.messages[1] == "Redis away for 60 s: pulling waits (refused)"
    assert caplog.messages[-1] == "Redis back after 3600.0 s: pulling goes on"


def test_what_was_never_away_says_nothing(caplog: pytest.LogCaptureFixture):
    AwayLog(log, "pulling").back(1.0)
    assert caplog.messages == []


def test_a_second_absence_is_told_of_at_once(caplog: pytest.LogCaptureFixture):
    away_log = AwayLog(log, "pulling")
    away_log.away(OSError("refused"), 1.0)
    away_log.back(2.0)
    away_log.away(OSError("no password"), 3.0)
    assert caplog.messages[-1] == "Redis away: pulling waits (no password)"


class Ends(Exception):
    """The program is to end."""


def test_a_connection_is_tried_until_the_program_ends(
    caplog: pytest.LogCaptureFixture,
):
    calls = iter((None, Ends))

    def end() -> None:
        """At the second try."""
        if fault := next(calls):
            raise fault

    nobody = Connection("redis://127.0.0.1:1/0")
    with pytest.raises(Ends):
        AwayLog(log, "steering").connect(nobody, between=end)
    assert caplog.messages[0].startswith("Redis away: steering waits (")
    assert len(caplog.messages) == 1
