"""Whoever takes messages, late or to cancel them: the scripts, on a real server."""

import json
from collections.abc import Iterator

import pytest

from modelserver.store.batch import MOST_BYTES, SUBMITTER
from modelserver.store.messages.cancelling import take_waiting
from modelserver.store.messages.reaps import reap
from tests.model.ground import KEYS, Ground, message
from tests.support.processes import ValkeyProcess

MAIN = KEYS.queue("m")[0]


@pytest.fixture
def ground(valkey: ValkeyProcess) -> Iterator[Ground]:
    ground = Ground(valkey.url)
    yield ground
    ground.close()


def cancelled(ground: Ground, who: str) -> int:
    """How many messages of a submitter somebody takes who then goes."""
    worker = ground.start_worker("canceller")

    async def take() -> int:
        return sum(
            [len(part) async for part in take_waiting(worker.deliveries, "m", who)]
        )

    return ground.wait(take())


def test_what_a_forgotten_worker_pulls_late_is_given_back(ground: Ground):
    frozen, other = ground.start_worker("frozen"), ground.start_worker("other")
    ground.end_lease(frozen)
    ground.wait(reap(other.deliveries))
    ground.put("m", message("r1", "a"))
    assert len(ground.wait(frozen.deliveries.pull("m", 1))) == 1
    assert ground.wait(reap(other.deliveries)).moved == 1
    assert ground.depth("m") == 1


@pytest.mark.parametrize("headers", [None, 3, "x", [], True])
def test_cancelling_passes_over_headers_of_any_shape(ground: Ground, headers: object):
    ground.put_plainly(MAIN, json.dumps({"headers": headers}))
    ground.put_plainly(MAIN, json.dumps({"headers": {SUBMITTER: "b"}}))
    assert cancelled(ground, "b") == 1
    assert ground.depth("m") == 1


def test_a_submitter_that_was_cancelled_has_one_turn_again(ground: Ground):
    for task, who in (("r1", "a"), ("r2", "b"), ("r3", "c")):
        ground.put("m", message(task, who))
    assert cancelled(ground, "b") == 1
    ground.put("m", message("r4", "b"))
    lists = ground.state().listed(ground.state().beside(MAIN, "ring"))
    assert len(lists) == len(set(lists)) == 3


def test_a_pull_moves_no_more_bytes_than_it_may(ground: Ground):
    worker = ground.start_worker("w")
    sizes = [MOST_BYTES // 4] * 6 + [2 * MOST_BYTES] + [MOST_BYTES // 4] * 2
    for size in sizes:
        ground.put_plainly(MAIN, "x" * size)
    pulls = []
    while pulled := ground.wait(worker.deliveries.pull("m", 128)):
        pulls.append([len(each.raw) for each in pulled])
    assert [size for pull in pulls for size in pull] == sizes
    # Whatever the last one has is only known when it is there.
    assert all(sum(pull[:-1]) < MOST_BYTES for pull in pulls)
    assert len(pulls) == 3
