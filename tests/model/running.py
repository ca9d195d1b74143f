"""Runs the model for a number of steps."""

import time

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.ground import Ground
from tests.model.machine import Delivery

#: Runs that start from an empty server, of one batch.
RUNS = 15
#: Most steps of a run.
MOST_STEPS = 60
#: What is asked of hypothesis, whose clock and memory are of no use here.
SETTINGS = settings(
    max_examples=RUNS,
    stateful_step_count=MOST_STEPS,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate, Phase.shrink),
)


def run_model(url: str, steps: int, within: float, first_seed: int = 0) -> int:
    """Take steps until there are so many, or the seconds are over; returns how many.

    AssertionError with the shortest way to it, where a promise is broken. The same
    seed takes the same steps.
    """
    ground = Ground(url)
    number, until = first_seed, time.monotonic() + within

    class Model(Delivery):
        """Its steps are counted apart."""

    Model.ground = ground
    try:
        while Model.steps < steps and time.monotonic() < until:
            run_state_machine_as_test(seed(number)(Model), settings=SETTINGS)
            number += 1
    finally:
        ground.close()
    return Model.steps
