"""Who is refused because the fleet cannot answer in time, and who is not."""

import pytest

from modelserver.gateway.waiting import (
    ModelLoad,
    Newcomer,
    count_ahead,
    find_rate,
    find_ready_seconds,
    find_retry_seconds,
)
from modelserver.measured import Sample
from modelserver.store.keys import SAMPLES_KEPT
from modelserver.values import EngineReport, EngineState, Outcome

#: Ten places, all taken, two seconds a request: five answers a second.
FULL = ModelLoad(
    at=0.0, places=10, inflight=10, rate=5.0, mean_seconds=2.0, quickest_seconds=1.0
)


def load(**change: object) -> ModelLoad:
    values = {name: getattr(FULL, name) for name in ModelLoad.__slots__}
    return ModelLoad(**values | change)


def comer(**change: object) -> Newcomer:
    values = {"step": 0, "submitter": "", "calls": 1, "deadline": 10.0}
    return Newcomer(**values | change)


def refused(load: ModelLoad, sent: int = 0, now: float = 0.0, **change: object):
    return find_retry_seconds(load, comer(**change), sent, now)


@pytest.mark.parametrize(
    ("waiting", "again"), [(0, None), (45, None), (46, 1), (100, 11), (10**9, 3600)]
)
def test_a_request_is_refused_once_those_before_it_take_too_long(waiting, again):
    assert refused(load(queued=({"": waiting},))) == again


@pytest.mark.parametrize(
    "known",
    [
        ModelLoad(0.0),
        ModelLoad(0.0, ({"": 10**6},), places=10, inflight=10),
        load(queued=({}, {}, {}, {"batch": 10**6})),
        load(queued=({}, {"bob": 10**6})),
        load(inflight=8, quickest_seconds=99.0),
    ],
    ids=["no engine", "nothing measured", "filler", "less urgent", "a place is free"],
)
def test_a_request_is_not_refused(known: ModelLoad):
    assert refused(known) is None


def test_submitters_take_turns():
    beside = load(queued=({"ana": 1_000, "bob": 2},))
    assert count_ahead(beside, comer(submitter="bob", calls=3)) == 7
    assert refused(beside, submitter="bob") is None
    assert refused(beside, submitter="ana") == 192


def test_what_came_since_the_look_counts_and_what_was_answered_does_not():
    assert refused(FULL, sent=100) == 11
    assert refused(FULL, sent=100, now=11.0) is None


def test_all_prompts_of_a_body_must_be_answered():
    assert refused(FULL, calls=46) is None
    assert refused(FULL, calls=101) == 11


def test_engines_that_were_idle_can_do_more_than_they_did():
    idle = load(inflight=0, rate=0.1, queued=({"": 40},))
    assert refused(idle) is None


@pytest.mark.parametrize(("ready", "again"), [(None, None), (9.0, None), (60.0, 50)])
def test_without_an_engine_the_time_of_a_start_counts(ready, again):
    assert refused(ModelLoad(0.0, ready_seconds=ready)) == again


def test_a_start_takes_as_long_as_one_took_before():
    starting = [
        EngineReport(f"m-{since}", "m", "h", EngineState.STARTING, since=since)
        for since in (100.0, 130.0)
    ]
    assert find_ready_seconds(starting, 60.0, now=140.0) == 20.0
    assert find_ready_seconds(starting, 60.0, now=200.0) is None  # Late: nobody knows.
    assert find_ready_seconds(starting, None, now=140.0) is None
    assert find_ready_seconds([], 60.0, now=140.0) is None


def samples(number: int, every: float, outcome: Outcome = Outcome.OK) -> list[Sample]:
    """The newest of them ended at second 1000."""
    return [
        Sample("m-0", 1, 1_000 - place * every, 1.0, 1, 1, 0, 0, 0, outcome)
        for place in range(number)
    ]


def test_a_rate_is_that_of_the_last_minute_as_far_as_it_is_kept():
    assert find_rate(samples(30, every=1.0), now=1_000.0) == 0.5
    assert find_rate(samples(SAMPLES_KEPT, every=10.0), now=1_000.0) == 0.1
    assert find_rate(samples(SAMPLES_KEPT, every=0.1), now=1_000.0) == pytest.approx(
        10.0, rel=0.05
    )
    assert find_rate(samples(30, 1.0, Outcome.ENGINE_FAULT), now=1_000.0) == 0.0
    assert find_rate([], now=1_000.0) == 0.0
