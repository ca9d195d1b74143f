"""The table of an engine's life: this event in that state gives this."""

import pytest

from modelserver.policy.lifecycle import (
    FATAL_DEATHS,
    FATAL_WINDOW_SECONDS,
    FORGIVEN_AFTER_SECONDS,
    CannotHeal,
    Degraded,
    Died,
    DrainAsked,
    Event,
    Held,
    Life,
    Lost,
    Proved,
    Recovered,
    RetryDue,
    Started,
    StartTimedOut,
    Stopped,
    Wanted,
    advance,
    backoff_seconds,
)
from modelserver.values import Cause, EngineState

PENDING, STARTING, READY, DEGRADED, DRAINING, STOPPED, BACKOFF, FATAL = (
    EngineState.PENDING,
    EngineState.STARTING,
    EngineState.READY,
    EngineState.DEGRADED,
    EngineState.DRAINING,
    EngineState.STOPPED,
    EngineState.BACKOFF,
    EngineState.FATAL,
)
EVENTS: tuple[Event, ...] = (
    Wanted(),
    Held("port 1 is taken"),
    Started(7),
    Proved(),
    Degraded("slow: 2.1x"),
    Recovered(),
    Lost("no answer"),
    Died("exit code 1"),
    StartTimedOut("not ready after 9 s"),
    RetryDue(),
    DrainAsked("wanted no longer", Cause.RELEASED),
    Stopped(),
    CannotHeal("no such file"),
)
TRANSITIONS = {
    (PENDING, "Held"): PENDING,
    (PENDING, "Started"): STARTING,
    (PENDING, "Died"): BACKOFF,
    (PENDING, "CannotHeal"): FATAL,
    (PENDING, "DrainAsked"): STOPPED,
    (STARTING, "Proved"): READY,
    (STARTING, "Died"): BACKOFF,
    (STARTING, "StartTimedOut"): BACKOFF,
    (STARTING, "CannotHeal"): FATAL,
    (STARTING, "DrainAsked"): DRAINING,
    (READY, "Died"): BACKOFF,
    (READY, "Lost"): STARTING,
    (READY, "DrainAsked"): DRAINING,
    (READY, "Degraded"): DEGRADED,
    (DEGRADED, "Degraded"): DEGRADED,
    (DEGRADED, "Recovered"): READY,
    (DEGRADED, "Died"): BACKOFF,
    (DEGRADED, "Lost"): STARTING,
    (DEGRADED, "DrainAsked"): DRAINING,
    (DRAINING, "Died"): STOPPED,
    (DRAINING, "Stopped"): STOPPED,
    (BACKOFF, "RetryDue"): PENDING,
    (BACKOFF, "DrainAsked"): STOPPED,
    (FATAL, "Wanted"): PENDING,
    (FATAL, "DrainAsked"): STOPPED,
    (STOPPED, "Wanted"): PENDING,
}


@pytest.mark.parametrize("state", EngineState)
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_event_leads_where_the_table_says_and_else_changes_nothing(
    state: EngineState, event: Event
) -> None:
    life = Life(state=state, since=1.0, incarnation=3)
    expected = TRANSITIONS.get((state, type(event).__name__))
    after = advance(life, event, now=10.0)
    if expected is None:
        assert after is life
    else:
        assert after.state is expected


def test_a_new_engine_waits_to_be_started() -> None:
    assert Life().state is PENDING


def test_start_counts_and_takes_the_new_incarnation() -> None:
    life = advance(Life(incarnation=3, starts=1), Started(4, "adopted"), now=5.0)
    assert (life.incarnation, life.starts, life.since) == (4, 2, 5.0)
    assert life.reason == "adopted"


def test_waiting_for_a_port_keeps_the_time_since_when_it_waits() -> None:
    life = advance(Life(since=2.0), Held("port 8001 is taken"), now=9.0)
    assert (life.since, life.reason) == (2.0, "port 8001 is taken")


def test_ready_engine_has_no_reason_left() -> None:
    life = Life(state=STARTING, reason="adopted")
    assert advance(life, Proved(), now=1.0).reason == ""


def test_first_death_is_started_again_at_once() -> None:
    life = advance(Life(state=READY), Died("killed by SIGKILL"), now=50.0)
    assert (life.retry_at, life.reason) == (50.0, "killed by SIGKILL")
    assert advance(life, RetryDue(), now=50.0).state is PENDING


def test_second_death_waits_out_its_backoff() -> None:
    life = Life(state=STARTING, deaths=(40.0,))
    life = advance(life, StartTimedOut("not ready"), now=50.0)
    assert life.retry_at == 55.0
    assert advance(life, RetryDue(), now=54.9) is life
    again = advance(life, RetryDue(), now=55.0)
    assert (again.state, again.reason) == (PENDING, "not ready")


def test_deaths_are_forgiven_after_a_long_ready_time() -> None:
    life = Life(state=STARTING, deaths=(-3.0, -2.0, -1.0))
    life = advance(life, Proved(), now=0.0)
    died = Died("exit code 1")
    early = advance(life, died, now=FORGIVEN_AFTER_SECONDS - 0.1)
    assert len(early.deaths) == 4
    late = advance(life, died, now=FORGIVEN_AFTER_SECONDS)
    assert late.deaths == (FORGIVEN_AFTER_SECONDS,)
    assert late.retry_at == FORGIVEN_AFTER_SECONDS


def test_long_start_forgives_nothing() -> None:
    life = Life(state=STARTING, since=0.0, deaths=(-1.0,))
    life = advance(life, Died("exit code 1"), now=FORGIVEN_AFTER_SECONDS)
    assert len(life.deaths) == 2


def test_five_deaths_in_ten_minutes_are_fatal_and_say_why() -> None:
    life = Life(state=STARTING, deaths=(1.0, 2.0, 3.0, 4.0))
    life = advance(life, Died("exit code 3"), now=5.0)
    assert life.state is FATAL
    assert "failed 5 times in 10 minutes" in life.reason
    assert "exit code 3" in life.reason
    assert "relaunch" in life.reason


def test_five_deaths_in_a_longer_time_are_not_fatal() -> None:
    deaths = tuple(float(at) for at in range(FATAL_DEATHS - 1))
    life = Life(state=STARTING, deaths=deaths)
    life = advance(life, Died("exit code 3"), now=FATAL_WINDOW_SECONDS + 0.5)
    assert life.state is BACKOFF


def test_death_while_draining_is_no_fault() -> None:
    life = advance(Life(state=DRAINING), Died("killed"), now=5.0)
    assert (life.state, life.deaths) == (STOPPED, ())


def test_wish_after_a_fatal_end_starts_with_a_clean_slate() -> None:
    life = Life(state=FATAL, deaths=(1.0, 2.0), retry_at=9.0, reason="no such file")
    life = advance(life, Wanted(), now=10.0)
    assert (life.deaths, life.retry_at, life.reason) == ((), 0.0, "")


def test_backoff_grows_to_its_limit() -> None:
    waits = [backoff_seconds(deaths) for deaths in (0, 1, 2, 3, 4, 5, 6, 50)]
    assert waits == [0, 0, 5, 15, 45, 135, 300, 900]


def test_degraded_engine_says_why_until_control_trusts_it_again() -> None:
    ready = Life(state=READY, since=1.0, serves_since=1.0)
    careful = advance(ready, Degraded("slow: 2.1x"), now=5.0)
    assert (careful.reason, careful.since) == ("slow: 2.1x", 5.0)
    worse = advance(careful, Degraded("slow: 4.0x"), now=6.0)
    assert (worse.reason, worse.since) == ("slow: 4.0x", 5.0)
    again = advance(worse, Recovered(), now=9.0)
    assert (again.state, again.reason, again.since) == (READY, "", 9.0)


def test_change_between_ready_and_degraded_does_not_put_forgiveness_off() -> None:
    life = advance(Life(state=STARTING, deaths=(-1.0,)), Proved(), now=0.0)
    life = advance(life, Degraded("slow: 2.1x"), now=FORGIVEN_AFTER_SECONDS - 1)
    life = advance(life, Died("exit code 1"), now=FORGIVEN_AFTER_SECONDS)
    assert life.deaths == (FORGIVEN_AFTER_SECONDS,)


def test_a_drained_engine_knows_why_whatever_its_reason_says() -> None:
    asked = DrainAsked("hung errors are asked for by hung", Cause.ASKED)
    life = advance(Life(state=READY), asked, now=1.0)
    assert (life.cause, life.cause.is_fault) == (Cause.ASKED, False)


def test_only_faults_of_the_engine_are_incidents() -> None:
    faults = {cause for cause in Cause if cause.is_fault}
    assert faults == {Cause.SLOW, Cause.SLOW_CANARIES, Cause.ERRORS, Cause.HUNG}


@pytest.mark.parametrize("state", EngineState)
def test_only_ready_and_degraded_engines_serve(state: EngineState) -> None:
    assert state.serves == (state in (READY, DEGRADED))


def test_what_may_heal_is_tried_for_ever_every_fifteen_minutes_at_last() -> None:
    life, now = Life(state=STARTING), 0.0
    for failed in range(1, 12):
        life = advance(life, Died("CUDA out of memory", may_heal=True), now)
        assert life.state is BACKOFF
        now = life.retry_at
        life = advance(life, RetryDue(), now)
        life = advance(life, Started(failed), now)
    assert life.retry_at - life.deaths[-1] == 900
