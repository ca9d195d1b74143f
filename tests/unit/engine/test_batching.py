"""The batch of the fault-injecting engine, step by step."""

import pytest

from tests.engine.batching import Batch, Job, StepCosts


def run_to_the_end(batch: Batch) -> dict[int, float]:
    """When each request finishes, in seconds from now."""
    now = 0.0
    ends: dict[int, float] = {}
    while not batch.idle:
        step = batch.plan()
        now += step.seconds
        ends |= dict.fromkeys(batch.advance(step), now)
    return ends


def test_a_step_costs_a_base_and_more_for_each_request_and_prefilled_token() -> None:
    costs = StepCosts(step_seconds=0.008, batch_seconds=0.001, prefill_seconds=0.0001)
    assert costs.seconds(running=4, prefill_tokens=100) == pytest.approx(0.022)


def test_a_lone_request_takes_a_step_for_each_token() -> None:
    batch = Batch(StepCosts(step_seconds=1.0))
    batch.add(1, Job(prompt_tokens=10, max_tokens=5))
    assert run_to_the_end(batch) == {1: 5.0}
    assert batch.generated == 5


def test_requests_that_run_together_share_the_steps() -> None:
    batch = Batch(StepCosts(step_seconds=1.0, batch_seconds=0.5))
    batch.add(1, Job(prompt_tokens=1, max_tokens=2))
    batch.add(2, Job(prompt_tokens=1, max_tokens=4))
    assert run_to_the_end(batch) == {1: 4.0, 2: 7.0}


def test_a_long_prompt_is_prefilled_in_chunks_before_its_first_token() -> None:
    costs = StepCosts(step_seconds=1.0, prefill_seconds=0.01, chunk_tokens=100)
    batch = Batch(costs)
    batch.add(1, Job(prompt_tokens=250, max_tokens=1))
    seconds = []
    while not batch.idle:
        step = batch.plan()
        seconds.append(step.seconds)
        batch.advance(step)
    assert seconds == [2.0, 2.0, 1.5]


def test_a_request_still_decodes_while_another_one_is_prefilled() -> None:
    batch = Batch(StepCosts(step_seconds=1.0, chunk_tokens=10))
    batch.add(1, Job(prompt_tokens=1, max_tokens=3))
    batch.advance(batch.plan())
    batch.add(2, Job(prompt_tokens=20, max_tokens=1))
    assert batch.advance(batch.plan()) == []
    assert batch.advance(batch.plan()) == [1, 2]


def test_those_that_do_not_fit_wait_their_turn() -> None:
    batch = Batch(StepCosts(step_seconds=1.0, max_running=2))
    for key in (1, 2, 3):
        batch.add(key, Job(prompt_tokens=1, max_tokens=2))
    batch.plan()
    assert (batch.running, batch.waiting) == (2, 1)
    assert run_to_the_end(batch) == {1: 2.0, 2: 2.0, 3: 4.0}


def test_several_answers_to_one_prompt_take_several_places() -> None:
    batch = Batch(StepCosts(step_seconds=1.0, max_running=4))
    batch.add(1, Job(prompt_tokens=1, max_tokens=2, width=3))
    batch.add(2, Job(prompt_tokens=1, max_tokens=2, width=2))
    assert run_to_the_end(batch) == {1: 2.0, 2: 4.0}
    assert batch.generated == 10


def test_a_request_wider_than_the_batch_runs_alone() -> None:
    batch = Batch(StepCosts(step_seconds=1.0, max_running=2))
    batch.add(1, Job(prompt_tokens=1, max_tokens=1, width=5))
    assert run_to_the_end(batch) == {1: 1.0}


def test_an_embedding_ends_with_its_prefill_and_generates_nothing() -> None:
    batch = Batch(StepCosts(step_seconds=1.0, chunk_tokens=10))
    batch.add(1, Job(prompt_tokens=20, max_tokens=0))
    assert run_to_the_end(batch) == {1: 2.0}
    assert batch.generated == 0


def test_a_dropped_request_leaves_its_place_and_says_how_far_it_came() -> None:
    batch = Batch(StepCosts(step_seconds=1.0, max_running=1))
    batch.add(1, Job(prompt_tokens=5, max_tokens=100))
    batch.add(2, Job(prompt_tokens=5, max_tokens=1))
    batch.advance(batch.plan())
    assert batch.held_tokens == 6
    assert batch.drop(1) == 1
    assert run_to_the_end(batch) == {2: 1.0}


def test_dropping_one_that_waits_or_is_unknown_gives_no_tokens() -> None:
    batch = Batch(StepCosts(step_seconds=1.0))
    batch.add(1, Job(prompt_tokens=5, max_tokens=1))
    assert batch.drop(1) == 0
    assert batch.drop(7) == 0
    assert batch.idle


def test_one_that_is_dropped_or_comes_during_a_step_is_no_part_of_it() -> None:
    batch = Batch(StepCosts(step_seconds=1.0))
    batch.add(1, Job(prompt_tokens=1, max_tokens=1))
    step = batch.plan()
    batch.drop(1)
    batch.add(2, Job(prompt_tokens=1, max_tokens=1))
    assert batch.advance(step) == []
    assert batch.generated == 0
    assert run_to_the_end(batch) == {2: 1.0}
