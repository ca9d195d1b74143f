"""Rates and waits."""

import pytest

from modelserver.inventory import GIB, Gpu, GpuProcess
from modelserver.measured import Sample
from modelserver.page.figures import (
    LOOK_SECONDS,
    REMEMBERED_SECONDS,
    QueueHistory,
    Waiting,
    answer_rate,
    ours_and_others,
)
from modelserver.values import Outcome


def sample(ended_at: float, outcome: Outcome = Outcome.OK) -> Sample:
    return Sample("m-0", 1, ended_at, 1.0, 7, 10, 1, 1, 7, outcome)


def test_a_rate_counts_the_answers_of_a_minute():
    samples = [sample(100.0), sample(90.0, Outcome.ENGINE_FAULT), sample(10.0)]
    assert answer_rate(samples, now=100.0) == 1 / 60
    assert answer_rate(samples, now=200.0) == 0
    assert answer_rate((), now=200.0) == 0


def test_a_rate_is_of_the_time_that_samples_cover():
    samples = [sample(100.0 - n / 10) for n in range(64)]
    assert answer_rate(samples, now=100.0) == pytest.approx(64 / 6.3)


def test_nothing_waits():
    history = QueueHistory()
    assert history.waiting(0.0, 1.0, None) == Waiting(1.0)
    history.note(0.0, backlog=0)
    assert history.waiting(0.0, 1.0, None) == Waiting(1.0, backlogs=(0,))


def test_the_oldest_waits_since_it_was_sent():
    history = QueueHistory()
    history.note(0.0, backlog=0)
    history.note(30.0, backlog=15)
    assert history.waiting(30.0, 5.0, 20.0) == Waiting(5.0, 10.0, 3.0, (0, 15))
    assert history.waiting(30.0, 0.0, 20.0).drain_seconds is None
    # By a clock that goes before.
    assert history.waiting(30.0, 5.0, 31.0).oldest_seconds == 0.0


def test_looks_in_quick_succession_and_old_ones_take_no_room():
    history = QueueHistory()
    for n in range(100):
        history.note(n * LOOK_SECONDS / 10, backlog=n)
    assert len(history.waiting(20.0, 0.0, None).backlogs) < 20
    history.note(2 * REMEMBERED_SECONDS, backlog=1)
    assert history.waiting(2 * REMEMBERED_SECONDS, 0.0, None).backlogs == (1,)


def test_memory_of_others_is_what_our_engines_do_not_hold():
    ours = GpuProcess(1, 60 * GIB, engine="m-0")
    theirs = GpuProcess(2, 5 * GIB, "anna", "python")
    gpu = Gpu(0, "u", total=80 * GIB, used=70 * GIB, processes=(ours, theirs))
    assert ours_and_others(gpu) == (60 * GIB, 10 * GIB)
