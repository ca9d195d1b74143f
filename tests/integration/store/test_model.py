"""Some hundreds of steps of the model; ``make chaos NAME=model`` takes 100,000."""

from tests.model.running import run_model
from tests.support.processes import ValkeyProcess


def test_no_order_of_events_loses_or_repeats_a_request(valkey: ValkeyProcess):
    assert run_model(valkey.url, steps=300, within=30) >= 100
